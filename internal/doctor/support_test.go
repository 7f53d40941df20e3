package doctor_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep/internal/config"
	"lockstep/internal/doctor"
	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child()) // this binary as another user, or with few files: see machine_test.go
	}
	pgtest.Main(m)
}

// configure returns a configuration of one database in a directory of its own.
func configure(t testing.TB, address string) *config.Config {
	t.Helper()
	c := config.Default()
	c.DataDir = t.TempDir()
	c.Listen = "127.0.0.1:0"
	c.Stream.Retention.Bytes = 1 << 30
	d := &c.Databases[0]
	d.URL = config.URL(address)
	// Slots and their names belong to the whole server, which the tests share.
	d.Slot = fmt.Sprintf("doctor_%d_%d", os.Getpid(), next())
	d.Publication = d.Slot
	return c
}

// next returns another number every time.
func next() int64 { return counter.Add(1) }

var counter atomic.Int64

func run(t testing.TB, c *config.Config) doctor.Report {
	t.Helper()
	return doctor.Run(t.Context(), doctor.Options{Config: c}.Quick())
}

// want checks that one of the check's findings has the status and says everything.
// What warns or fails must come with a reason and, but for notes, a remedy.
func want(t testing.TB, r doctor.Report, id string, status doctor.Status, says ...string) {
	t.Helper()
	var others []string
	for _, f := range r.Findings {
		if f.ID != id {
			continue
		}
		text := f.Summary + "\n" + f.Remedy
		missing := ""
		for _, s := range says {
			if !strings.Contains(text, s) {
				missing = s
			}
		}
		if f.Status == status && missing == "" {
			if f.Why == "" || f.Target == "" {
				t.Errorf("%s: the finding has no reason or target: %+v", id, f)
			}
			if f.Remedy == "" && id != "table_notes" && (status == doctor.Warn || status == doctor.Fail) {
				t.Errorf("%s: the finding has no remedy: %+v", id, f)
			}
			return
		}
		others = append(others, fmt.Sprintf("%s: %s", f.Status, text))
	}
	t.Errorf("%s: no finding is %s and says %q; there are:\n%s", id, status, says, strings.Join(others, "\n"))
}

// role makes a role that may log in and nothing else, and returns its name.
func role(t testing.TB, address string, options ...string) string {
	t.Helper()
	name := fmt.Sprintf("doctor_role_%d", next())
	pgtest.Exec(t, address, "CREATE ROLE "+name+" LOGIN "+strings.Join(options, " "))
	return name
}

// as returns the address for another user.
func as(t testing.TB, address, user string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}

// hold locks the data directory as a running node does, until the test ends.
func hold(t testing.TB, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, os.Getpid())
}

// replicate opens a replication connection and starts what the command says.
func replicate(t testing.TB, address, applicationName, command string) {
	t.Helper()
	c, err := pgconn.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	c.RuntimeParams["replication"] = "database"
	c.RuntimeParams["application_name"] = applicationName
	conn, err := pgconn.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Conn().Close() })
	// The answer to START_REPLICATION is a stream without end: nobody reads it.
	body := append([]byte(command), 0)
	message := append([]byte{'Q'}, binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))...)
	if _, err := conn.Conn().Write(append(message, body...)); err != nil {
		t.Fatal(err)
	}
}

// front is a program in front of a Postgres: it takes a connection, reads the
// startup packet, and may refuse it.
type front struct {
	refuse func(startup []byte) string          // the message of the refusal; empty: goes through
	secure func(net.Conn) (io.ReadWriter, bool) // what becomes of a wish for TLS; nil: it is denied
}

// between starts the front on host (an address of this machine) and returns its URL.
func between(t testing.TB, host, database string, f front) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	target, err := pgconn.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { f.serve(ctx, conn, target) })
		}
	})
	mode := "disable"
	if f.secure != nil {
		mode = "require"
	}
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=%s", target.User, listener.Addr(), target.Database, mode)
}

func (f front) serve(ctx context.Context, socket net.Conn, target *pgconn.Config) {
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	defer socket.Close()
	var conn io.ReadWriter = socket
	startup, err := packet(conn)
	if err == nil && len(startup) == 8 && f.secure != nil { // a wish for TLS
		if conn, _ = f.secure(socket); conn == nil {
			return
		}
		startup, err = packet(conn)
	}
	if err != nil {
		return
	}
	if f.refuse != nil {
		if said := f.refuse(startup); said != "" {
			body := fmt.Appendf(nil, "SFATAL\x00VFATAL\x00C08P01\x00M%s\x00\x00", said)
			_, _ = conn.Write(append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4)), body...))
			return
		}
	}
	network, place := pgconn.NetworkAddress(target.Host, target.Port)
	server, err := (&net.Dialer{}).DialContext(ctx, network, place)
	if err != nil {
		return
	}
	defer server.Close()
	stopServer := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopServer()
	if _, err := server.Write(startup); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(conn, server); _ = socket.Close() })
	_, _ = io.Copy(server, conn)
	_ = server.Close()
	back.Wait()
}

// packet reads one packet without a type: its length, then the rest.
func packet(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head)-4)
	_, err := io.ReadFull(r, rest)
	return append(head, rest...), err
}
