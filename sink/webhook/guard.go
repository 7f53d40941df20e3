package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// refusedError is a connection that was not made because of where it would go.
type refusedError struct{ reason string }

// Error does not tell the address: whoever may name a host would learn how names
// resolve within the network.
func (e *refusedError) Error() string {
	return "its name leads to an address that is " + e.reason + ": only public addresses are allowed, unless allow_private is set"
}

// transport is one that dials public addresses only, unless told otherwise.
func (w *Webhook) transport() *http.Transport {
	w.dialer = &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	if !w.config.AllowPrivate {
		// Control sees each address after the name was resolved and right before the
		// connection: there is nothing in between that could change.
		w.dialer.ControlContext = func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return permit(network, address)
		}
	}
	return &http.Transport{
		DialContext:            w.dial,
		Proxy:                  nil, // not the environment's: it would connect in our place
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // answers are looked at, not unpacked
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

func (w *Webhook) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return w.life.dial(ctx, w.dialer, network, address)
}

func permit(network, address string) error {
	if network != "tcp4" && network != "tcp6" {
		return &refusedError{reason: "not on the internet"}
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return errors.New("the address cannot be read")
	}
	if reason := refusal(to.Addr()); reason != "" {
		return &refusedError{reason: reason}
	}
	return nil
}

// refusal says why an address is not public; empty when it is.
func refusal(address netip.Addr) string {
	address = address.Unmap().WithZone("")
	list := special4()
	if address.Is6() {
		if !globalUnicast().Contains(address) {
			list = outside6()
		} else {
			list = special6()
		}
	}
	for _, s := range list {
		if s.prefix.Contains(address) {
			return s.reason
		}
	}
	return ""
}

// special is a range of the registries of special addresses (RFC 6890).
type special struct {
	prefix netip.Prefix
	reason string
}

func ranges(reason string, prefixes ...string) []special {
	list := make([]special, len(prefixes))
	for i, p := range prefixes {
		list[i] = special{prefix: netip.MustParsePrefix(p), reason: reason}
	}
	return list
}

func join(lists ...[]special) (all []special) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func special4() []special {
	return join(
		ranges("loopback", "127.0.0.0/8"),
		ranges("private", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
		ranges("link-local, where clouds keep their metadata", "169.254.0.0/16"),
		ranges("a cloud's own", "168.63.129.16/32"), // Azure's agent, at a public address
		ranges("shared by a provider (CGNAT)", "100.64.0.0/10"),
		ranges("unspecified", "0.0.0.0/8"),
		ranges("multicast", "224.0.0.0/4"),
		ranges("reserved", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
	)
}

// globalUnicast is all of IPv6 that is public, but for special6.
func globalUnicast() netip.Prefix { return netip.MustParsePrefix("2000::/3") }

func special6() []special {
	return join(
		ranges("a tunnel into IPv4", "2002::/16", "2001::/32"),
		ranges("reserved", "2001::/23", "2001:db8::/32", "3fff::/20"),
	)
}

func outside6() []special {
	return join(
		ranges("loopback", "::1/128"),
		ranges("unspecified", "::/128"),
		ranges("private", "fc00::/7", "fec0::/10"),
		ranges("link-local, where clouds keep their metadata", "fe80::/10"),
		ranges("multicast", "ff00::/8"),
		ranges("a translation into IPv4 (NAT64)", "64:ff9b::/96", "64:ff9b:1::/48"),
		ranges("reserved", "::/0"),
	)
}
