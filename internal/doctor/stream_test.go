package doctor_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"lockstep/internal/config"
	"lockstep/internal/doctor"
)

// nats starts a NATS server of the test's own.
func nats(t testing.TB, o server.Options) *server.Server {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	o.HTTPHost, o.HTTPPort = "127.0.0.1", server.RANDOM_PORT
	o.StoreDir = t.TempDir()
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	return s
}

func examineStream(t testing.TB, address, monitor string, login func(context.Context) error) doctor.Report {
	t.Helper()
	c := offline(t)
	c.Stream.URL = config.URL(address)
	return doctor.Run(t.Context(), doctor.Options{Config: c, Stream: login}.Quick().Monitor(monitor))
}

func TestTheEmbeddedStream(t *testing.T) {
	t.Parallel()
	c := offline(t)
	want(t, run(t, c), "stream_sync", doctor.Pass, "on disk")
	want(t, run(t, c), "stream_retention", doctor.Pass, "at most")
	c.Stream.Retention = config.Retention{}
	want(t, run(t, c), "stream_retention", doctor.Warn, "without limit", "age: 168h")
}

func TestExternalStreams(t *testing.T) {
	t.Parallel()
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		r := examineStream(t, "nats://127.0.0.1:1", "1", nil)
		want(t, r, "stream_reach", doctor.Fail, "connection refused", "stream.url")
		want(t, r, "stream_sync", doctor.Skip, "stream_reach did not pass")
	})
	t.Run("another program", func(t *testing.T) {
		t.Parallel()
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			if conn, err := listener.Accept(); err == nil {
				_, _ = conn.Write([]byte("220 mail.example.org ESMTP\r\n"))
				_ = conn.Close()
			}
		}()
		want(t, examineStream(t, "nats://"+listener.Addr().String(), "1", nil), "stream_reach", doctor.Fail, "is not a NATS server")
	})
	t.Run("no JetStream", func(t *testing.T) {
		t.Parallel()
		s := nats(t, server.Options{})
		want(t, examineStream(t, s.ClientURL(), "1", nil), "stream_reach", doctor.Fail, "has no JetStream", "sync_interval: always")
	})
	t.Run("a refused login", func(t *testing.T) {
		t.Parallel()
		s := nats(t, server.Options{JetStream: true, Authorization: "s3cr3t-t0ken"})
		address := strings.Replace(s.ClientURL(), "nats://", "nats://s3cr3t-t0ken@", 1)
		r := examineStream(t, address, "1", func(context.Context) error { return errors.New("connect with s3cr3t-t0ken: Authorization Violation") })
		want(t, r, "stream_reach", doctor.Pass, "with JetStream")
		want(t, r, "stream_login", doctor.Fail, "Authorization Violation", "jetstream: enabled")
		for _, f := range r.Findings {
			if strings.Contains(f.Target+f.Summary+f.Remedy, "s3cr3t") {
				t.Errorf("the token shows: %+v", f)
			}
		}
	})
	t.Run("writes later", func(t *testing.T) {
		t.Parallel()
		s := nats(t, server.Options{JetStream: true, SyncInterval: 2 * time.Minute})
		want(t, examineStream(t, s.ClientURL(), portOf(t, s), nil), "stream_sync", doctor.Warn, "writes to disk every 2m0s", "jetstream { sync_interval: always }")
	})
	t.Run("writes at once", func(t *testing.T) {
		t.Parallel()
		s := nats(t, server.Options{JetStream: true, SyncAlways: true})
		r := examineStream(t, s.ClientURL(), portOf(t, s), func(context.Context) error { return nil })
		want(t, r, "stream_sync", doctor.Pass)
		want(t, r, "stream_login", doctor.Pass)
		want(t, examineStream(t, s.ClientURL(), "1", nil), "stream_sync", doctor.Warn, "cannot be known", "sync_interval: always")
	})
}

func portOf(t testing.TB, s *server.Server) string {
	t.Helper()
	u, err := url.Parse("http://" + s.MonitorAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}
