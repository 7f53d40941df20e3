package webhook

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"lockstep/sink"
)

// TestAMessageIsNotReadAfterWrite: an endpoint answers before it has read the request;
// what it reads afterwards is not what the caller has put into the message since.
func TestAMessageIsNotReadAfterWrite(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	defer server.Wait()
	defer listener.Close()
	returned := make(chan struct{})
	server.Go(func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for line := "x"; line != "\r\n" && err == nil; {
			line, err = in.ReadString('\n')
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		<-returned
		rest, _ := io.ReadAll(in)
		if at := bytes.IndexByte(rest, 'X'); at >= 0 {
			t.Errorf("of %d bytes, those from %d were read after Write had returned", len(rest), at)
		}
	})
	w, err := New(Config{URL: "http://" + listener.Addr().String(), AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close(t.Context()) }()
	m := change(1, "a")
	m.Body = bytes.Repeat([]byte{'y'}, DefaultMaxBody-1)
	_, err = w.Write(t.Context(), []sink.Message{m})
	for i := range m.Body {
		m.Body[i] = 'X'
	}
	close(returned)
	if err != nil {
		t.Error(err)
	}
}

// TestASmallRequestIsSentAtOnce: its header and body are one write, so that the endpoint
// is woken once.
func TestASmallRequestIsSentAtOnce(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	defer server.Wait()
	defer listener.Close()
	m := change(1, "a")
	server.Go(func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		request := make([]byte, 64<<10)
		for range 20 {
			n, err := c.Read(request)
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
			if !bytes.HasSuffix(request[:n], m.Body) {
				t.Errorf("the first %d bytes of a request have no body", n)
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	w, err := New(Config{URL: "http://" + listener.Addr().String(), AllowPrivate: true, Secrets: []Secret{{Key: key(1)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close(t.Context()) }()
	for range 20 {
		if _, err := w.Write(t.Context(), []sink.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
}
