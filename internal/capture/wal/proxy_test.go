package wal

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// tcpProxy passes TCP connections on to a Postgres, and can stop doing so.
type tcpProxy struct {
	url   string
	ended chan struct{} // closed when the test ends

	mu     sync.Mutex
	conns  []net.Conn
	frozen map[net.Conn]bool // passes nothing on, in either direction, and stays open
	pooler bool              // refuses the replication protocol, as poolers do
	tls    *tls.Config       // encrypts the client's side; nil: it does not
}

func newProxy(t testing.TB, url string) *tcpProxy {
	t.Helper()
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tcpProxy{ended: make(chan struct{}), frozen: map[net.Conn]bool{}, url: fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", config.User, listener.Addr(), config.Database)}
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
		close(p.ended)
		p.cut()
		all.Wait()
	})
	return p
}

func (p *tcpProxy) serve(client net.Conn, network, address string) {
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), network, address)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	pooler, encrypted := p.pooler, p.tls
	p.mu.Unlock()
	if encrypted != nil {
		request := make([]byte, 8) // SSLRequest
		if _, err := io.ReadFull(client, request); err != nil {
			return
		}
		_, _ = client.Write([]byte{'S'})
		client = tls.Server(client, encrypted)
	}
	if pooler && p.refuse(client, server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pipe(client, server) })
	both.Go(func() { p.pipe(server, client) })
	both.Wait()
}

// refuse reads the first packet, and refuses it when it asks for replication.
func (p *tcpProxy) refuse(client, server net.Conn) bool {
	first := make([]byte, 4096)
	n, err := client.Read(first)
	if err != nil {
		return false
	}
	if !bytes.Contains(first[:n], []byte("replication\x00")) {
		_, _ = server.Write(first[:n])
		return false
	}
	refusal, _ := (&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: replication"}).Encode(nil)
	_, _ = client.Write(refusal)
	_ = client.Close()
	_ = server.Close()
	return true
}

func (p *tcpProxy) pipe(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if p.isFrozen(from) {
			// Neither end hears of it when the other closes.
			<-p.ended
			return
		}
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *tcpProxy) isFrozen(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen[c]
}

// freeze makes the connections of now half-open for both sides.
func (p *tcpProxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		p.frozen[c] = true
	}
}

// cut closes the connections of now.
func (p *tcpProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// encrypt makes the proxy offer TLS, with a certificate of its own.
func (p *tcpProxy) encrypt(t testing.TB) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}}
	p.url = strings.Replace(p.url, "sslmode=disable", "sslmode=require", 1)
}

func (p *tcpProxy) setPooler() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pooler = true
}
