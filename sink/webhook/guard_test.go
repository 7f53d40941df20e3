package webhook

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/sink"
)

func TestOnlyPublicAddressesArePermitted(t *testing.T) {
	t.Parallel()
	for hostile := range strings.FieldsSeq(`127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 169.254.170.2 100.64.0.1 100.100.100.200
		100.127.255.255 0.0.0.0 0.1.2.3 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
		:: ::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:10.0.0.1 ::127.0.0.1 ::ffff:0:7f00:1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1
		64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2001::1 2001:db8::1 2001:10::1 3fff::1 100::1 5f00::1 4000::1 1::1`) {
		if refusal(netip.MustParseAddr(hostile)) == "" {
			t.Errorf("%s is permitted", hostile)
		}
	}
	for public := range strings.FieldsSeq(`8.8.8.8 1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255 172.15.0.1 172.32.0.0 192.167.255.255 198.17.255.255 223.255.255.255
		::ffff:8.8.8.8 2606:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 2001:200::1 3ffe::1`) {
		if reason := refusal(netip.MustParseAddr(public)); reason != "" {
			t.Errorf("%s is refused: %s", public, reason)
		}
	}
	for _, network := range []string{"udp4", "unix", "tcp"} {
		if permit(network, "8.8.8.8:443") == nil {
			t.Errorf("%s is permitted", network)
		}
	}
	if permit("tcp4", "8.8.8.8:443") != nil || permit("tcp6", "[2606:4700::1]:1") != nil || permit("tcp4", "localhost:80") == nil {
		t.Error("the address is not read as it is dialled")
	}
}

func TestNothingIsSentToAPrivateAddress(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	w, err := New(Config{URL: strings.Replace(e.URL, "127.0.0.1", "localhost", 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close(t.Context()) }()
	_, err = w.Write(t.Context(), []sink.Message{change(1, "a")})
	if kindIs(err) != sink.Refused || len(e.seen()) > 0 {
		t.Errorf("%v, and %d requests", err, len(e.seen()))
	}
	mustContain(t, fmt.Sprint(err), "an address that is loopback")
	if strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the error tells how the name resolves: %v", err)
	}
}

// TestProxiesOfTheEnvironmentAreNotUsed: one would connect in our place, to anywhere.
func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	t.Parallel()
	w, err := New(Config{URL: "https://example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close(t.Context()) }()
	if w.own.Proxy != nil {
		t.Error("the transport has a proxy")
	}
}

var errWouldConnect = errors.New("would connect")

// TestANameThatChangesItsAddressGainsNothing: the address that is judged is the one that
// is connected to. Nothing leaves the machine: permitted connections are stopped.
func TestANameThatChangesItsAddressGainsNothing(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	_, port, err := net.SplitHostPort(e.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{URL: "http://rebind.example:" + port, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close(t.Context()) }()
	dns := &liar{}
	w.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: dns.dial}
	guard := w.dialer.ControlContext
	var permitted []string
	w.dialer.ControlContext = func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := guard(ctx, network, address, c); err != nil {
			return err
		}
		permitted = append(permitted, address)
		return errWouldConnect
	}
	for _, step := range []struct {
		answer []string
		want   sink.Kind
		to     []string
	}{
		{[]string{"8.8.8.8"}, sink.Retry, []string{"8.8.8.8:" + port}},
		{[]string{"127.0.0.1"}, sink.Refused, nil},
		{[]string{"169.254.169.254"}, sink.Refused, nil},
		{[]string{"127.0.0.1", "8.8.4.4"}, "", []string{"8.8.4.4:" + port}},
	} {
		permitted = nil
		dns.set(step.answer...)
		_, err := w.Write(t.Context(), []sink.Message{change(1, "a")})
		if err == nil || step.want != "" && kindIs(err) != step.want || !slices.Equal(permitted, step.to) {
			t.Errorf("%v: %v, connected to %v", step.answer, err, permitted)
		}
	}
	if len(e.seen()) > 0 {
		t.Error("a request arrived")
	}
	dns.running.Wait()
}

// liar is a DNS server that says what it is told to, over connections in memory.
type liar struct {
	running sync.WaitGroup
	mu      sync.Mutex
	answer  []string
}

func (l *liar) set(answer ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

func (l *liar) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	l.running.Go(func() {
		defer far.Close()
		for {
			var size [2]byte
			if _, err := io.ReadFull(far, size[:]); err != nil {
				return
			}
			query := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(far, query); err != nil {
				return
			}
			reply := l.reply(query)
			if _, err := far.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
				return
			}
		}
	})
	return near, nil
}

// reply answers questions for A records, and has none of other types.
func (l *liar) reply(query []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := 12 // behind the header: the question's name, type and class
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5
	var addresses []string
	if binary.BigEndian.Uint16(query[end-4:]) == 1 {
		addresses = l.answer
	}
	out := append([]byte(nil), query[:2]...)
	out = append(out, 0x84, 0, 0, 1, 0, byte(len(addresses)), 0, 0, 0, 0)
	out = append(out, query[12:end]...)
	for _, a := range addresses {
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		out = append(out, netip.MustParseAddr(a).AsSlice()...)
	}
	return out
}
