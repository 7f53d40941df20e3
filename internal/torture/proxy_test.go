package torture_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// proxy passes TCP connections on to a Postgres, and cuts them on demand.
type proxy struct {
	address string
	// refuse may answer a client's first packet; nil, or false: it is passed on.
	refuse func(client net.Conn, first []byte) bool
	mu     sync.Mutex
	conns  []net.Conn
}

func newProxy(t testing.TB, url string) *proxy {
	t.Helper()
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String()}
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.serve(client, network, address) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		all.Wait()
	})
	return p
}

// url is the database's URL through the proxy.
func (p *proxy) url(t testing.TB, url string) string {
	t.Helper()
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", config.User, config.Password, p.address, config.Database)
}

func (p *proxy) serve(client net.Conn, network, address string) {
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), network, address)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	first := make([]byte, 4096)
	got, err := client.Read(first)
	if err != nil || p.refuse != nil && p.refuse(client, first[:got]) {
		_ = client.Close()
		_ = server.Close()
		return
	}
	if _, err := server.Write(first[:got]); err != nil {
		_ = client.Close()
	}
	var both sync.WaitGroup
	pipe := func(from, to net.Conn) {
		_, _ = io.Copy(to, from)
		_ = from.Close()
		_ = to.Close()
	}
	both.Go(func() { pipe(client, server) })
	both.Go(func() { pipe(server, client) })
	both.Wait()
}

// cut closes the connections of now.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
