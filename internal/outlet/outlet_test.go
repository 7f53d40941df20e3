package outlet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/outlet"
)

func TestMain(m *testing.M) {
	// The server's own writer of its state outlives its shutdown by moments.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"))
}

// patience is for a machine that is busy with other things.
const patience = 30 * time.Second

// tokens are what the bearers may still do.
type tokens struct {
	mu      sync.Mutex
	revoked map[string]bool
	unread  bool
}

func (k *tokens) Authorize(token string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if token != "good" && token != "other" || k.revoked[token] {
		return "", errors.New("no valid token")
	}
	return token, nil
}

func (k *tokens) Live(id string) bool { _, err := k.Authorize(id); return err == nil }

func (k *tokens) Ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unread {
		return lockstep.ErrUnavailable
	}
	return nil
}

func (k *tokens) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// serve opens a server in dir and runs it until the test or stop ends it.
func serve(t *testing.T, dir string, k *tokens) (s *outlet.Server, stop func()) {
	t.Helper()
	s, err := outlet.Open(t.Context(), outlet.Config{
		Dir: dir, Listen: "127.0.0.1:0", Authorize: k.Authorize, Live: k.Live, Ready: k.Ready, Recheck: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// dial connects as a client does; the server may not listen yet.
func dial(t *testing.T, s *outlet.Server, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append(options, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	conn, err := nats.Connect("nats://"+s.Address(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	eventually(t, "the connection", conn.IsConnected)
	return conn
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func stream(t *testing.T, conn *nats.Conn, timeout time.Duration) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(timeout))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// publish makes the stream of app, as a consumer of kind nats does, with two messages.
func publish(t *testing.T, s *outlet.Server) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.Token(s.Secret()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js := stream(t, conn, patience)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "lockstep-app", Subjects: []string{"lockstep.app.>"}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"one", "two"} {
		if _, err := js.Publish(t.Context(), "lockstep.app.public.orders.insert", []byte(body), jetstream.WithExpectStream("lockstep-app")); err != nil {
			t.Fatal(err)
		}
	}
	return js
}

func TestAClientWithATokenConsumesWhatWasPublished(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), &tokens{}
	s, stop := serve(t, dir, k)
	publish(t, s)
	for name, option := range map[string]nats.Option{"token": nats.Token("good"), "password": nats.UserInfo("anybody", "good")} {
		js := stream(t, dial(t, s, option), patience)
		pulled, err := js.CreateOrUpdateConsumer(t.Context(), "lockstep-app", jetstream.ConsumerConfig{Durable: name, FilterSubject: "lockstep.app.public.orders.*", AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"one", "two"} {
			m, err := pulled.Next(jetstream.FetchMaxWait(10 * time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.DoubleAck(t.Context()); err != nil || string(m.Data()) != want {
				t.Errorf("got %s, want %s; %v", m.Data(), want, err)
			}
		}
		ordered, err := js.OrderedConsumer(t.Context(), "lockstep-app", jetstream.OrderedConsumerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := ordered.Next(jetstream.FetchMaxWait(10 * time.Second)); err != nil || string(m.Data()) != "one" {
			t.Errorf("an ordered consumer gets %v, %v", m, err)
		}
		if err := js.DeleteConsumer(t.Context(), "lockstep-app", name); err != nil {
			t.Error(err)
		}
	}
	stop()
	s, _ = serve(t, dir, k)
	old, err := stream(t, dial(t, s, nats.Token("good")), patience).Stream(t.Context(), "lockstep-app")
	if err != nil || old.CachedInfo().State.Msgs != 2 {
		t.Errorf("after a restart: %v, %v", old, err)
	}
}

func TestNobodyComesInWithoutAToken(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, t.TempDir(), &tokens{})
	dial(t, s, nats.Token("good"))
	for name, option := range map[string]nats.Option{
		"nothing": nats.Name("x"), "a wrong token": nats.Token("bad"), "the token as the user": nats.UserInfo("good", ""), "our own name": nats.UserInfo("lockstep", ""),
	} {
		conn, err := nats.Connect("nats://"+s.Address(), option)
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestClientsCannotWrite(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, t.TempDir(), &tokens{})
	owner := publish(t, s)
	var mu sync.Mutex
	var refused []string
	conn := dial(t, s, nats.Token("good"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		refused = append(refused, strings.ToLower(err.Error()))
	}))
	js := stream(t, conn, 500*time.Millisecond) // what is refused has no answer
	for _, subject := range []string{
		"lockstep.app.public.orders.insert", "lockstep.new", "$JS.API.STREAM.CREATE.lockstep-x", "$JS.API.STREAM.UPDATE.lockstep-app", "$JS.API.STREAM.DELETE.lockstep-app",
		"$JS.API.STREAM.PURGE.lockstep-app", "$JS.API.STREAM.MSG.DELETE.lockstep-app", "$JS.API.STREAM.RESTORE.lockstep-app", "$JS.API.STREAM.SNAPSHOT.lockstep-app",
		"$JS.API.ACCOUNT.PURGE.$G", "$JS.API.SERVER.REMOVE", "$SYS.REQ.SERVER.PING", "_INBOX.of.another",
	} {
		if err := conn.PublishRequest(subject, nats.NewInbox(), []byte(`{"name":"lockstep-x","seq":1}`)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the refusal of "+subject, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(refused) > 0 && strings.Contains(refused[len(refused)-1], `publish to "`+strings.ToLower(subject)+`"`)
		})
	}
	for _, subject := range []string{">", "$SYS.>", "$JS.API.>", "$JS.ACK.>"} {
		if _, err := conn.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the refusal of "+subject, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Contains(refused[len(refused)-1], `subscription to "`+strings.ToLower(subject)+`"`)
		})
	}
	if err := js.DeleteStream(t.Context(), "lockstep-app"); err == nil {
		t.Error("a client deleted a stream")
	}
	if _, err := js.Publish(t.Context(), "lockstep.app.x", nil); err == nil {
		t.Error("a client published")
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "x"}); err == nil {
		t.Error("a client made a bucket")
	}
	kept, err := owner.Stream(t.Context(), "lockstep-app")
	if err != nil {
		t.Fatal(err)
	}
	if n := kept.CachedInfo().State.Msgs; n != 2 {
		t.Errorf("the stream has %d messages, want 2", n)
	}
}

// The server itself would write for a client: its answers, or a consumer's messages.
func TestAnswersGoToInboxesOnly(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, t.TempDir(), &tokens{})
	owner := publish(t, s)
	if _, err := owner.CreateStream(t.Context(), jetstream.StreamConfig{Name: "lockstep-shop", Subjects: []string{"lockstep.shop.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.CreateConsumer(t.Context(), "lockstep-app", jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	push := func(deliver string) string {
		return `{"stream_name":"lockstep-app","config":{"name":"sly","ack_policy":"none",` + deliver + `}}`
	}
	for name, line := range map[string]string{
		"an answer":           pub("$JS.API.STREAM.NAMES", "lockstep.app.public.orders.insert", ""),
		"an old message":      pub("$JS.API.STREAM.MSG.GET.lockstep-app", "lockstep.shop.x", `{"seq":1}`),
		"pulled messages":     pub("$JS.API.CONSUMER.MSG.NEXT.lockstep-app.d", "lockstep.shop.x", `{"batch":2}`),
		"tabs between":        "pub\t$JS.API.STREAM.NAMES \t lockstep.app.x\t0\r\n\r\n",
		"with headers":        "HPUB $JS.API.STREAM.NAMES lockstep.app.x 12 12\r\nNATS/1.0\r\n\r\n\r\n",
		"pushed messages":     pub("$JS.API.CONSUMER.CREATE.lockstep-app.sly", "_INBOX.x", push(`"deliver_subject":"lockstep.shop.y"`)),
		"pushed, said twice":  pub("$JS.API.CONSUMER.CREATE.lockstep-app.sly", "_INBOX.x", push(`"deliver_subject":"_INBOX.y","DELIVER_SUBJECT":"lockstep.shop.y"`)),
		"pushed by a durable": pub("$JS.API.CONSUMER.DURABLE.CREATE.lockstep-app.sly", "_INBOX.x", push(`"durable_name":"sly","deliver_subject":"lockstep.shop.y"`)),
		"rubbish":             "GET / HTTP/1.1\r\n\r\n",
		"a wrong length":      "PUB $JS.API.INFO _INBOX.x 1\r\nabc\r\n",
		"a message too large": "PUB $JS.API.INFO _INBOX.x 999999999\r\n",
	} {
		if got := say(t, s, line); !strings.Contains(got, "-ERR") {
			t.Errorf("%s: the server says %q, want that the client is cut off", name, got)
		}
	}
	for _, name := range []string{"lockstep-app", "lockstep-shop"} {
		kept, err := owner.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := kept.CachedInfo().State.LastSeq, map[string]uint64{"lockstep-app": 2}[name]; got != want {
			t.Errorf("%s is at message %d, want %d", name, got, want)
		}
	}
}

func pub(subject, reply, body string) string {
	return fmt.Sprintf("PUB %s %s %d\r\n%s\r\n", subject, reply, len(body), body)
}

// say sends a line over a connection of its own and returns what comes until it ends.
func say(t *testing.T, s *outlet.Server, line string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(`CONNECT {"auth_token":"good","verbose":false,"headers":true,"lang":"test","version":"1"}` + "\r\nPING\r\n" + line)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still there after %q", line)
	}
	return string(text)
}

// A push consumer to an inbox is what older clients use.
func TestAPushConsumerDeliversToAnInbox(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, t.TempDir(), &tokens{})
	publish(t, s)
	older, err := dial(t, s, nats.Token("good")).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	sub, err := older.SubscribeSync("lockstep.app.>", nats.Durable("older"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		if m, err := sub.NextMsg(patience); err != nil || string(m.Data) != want {
			t.Fatalf("got %v, %v, want %s", m, err, want)
		}
	}
}

func TestARevokedTokenEndsItsConnections(t *testing.T) {
	t.Parallel()
	k := &tokens{revoked: map[string]bool{}}
	s, _ := serve(t, t.TempDir(), k)
	lost, stays := dial(t, s, nats.Token("good")), dial(t, s, nats.Token("other"))
	k.set(func() { k.revoked["good"] = true })
	eventually(t, "the connection to be refused for good", lost.IsClosed)
	if _, err := stream(t, stays, patience).AccountInfo(t.Context()); err != nil || stays.Stats().Reconnects > 0 {
		t.Errorf("the other connection: %v", err)
	}
}

func TestNobodyIsAskedBeforeTheTokensAreKnown(t *testing.T) {
	t.Parallel()
	k := &tokens{unread: true}
	s, _ := serve(t, t.TempDir(), k)
	asked, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	publish(t, s)
	if err := asked.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := asked.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client is heard before the tokens are known: %d, %v", n, err)
	}
	k.set(func() { k.unread = false })
	dial(t, s, nats.Token("good"))
}

func TestAnAddressInUseIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := outlet.Open(t.Context(), outlet.Config{Dir: t.TempDir(), Listen: l.Addr().String()}); err == nil || !strings.Contains(err.Error(), "stream.listen") {
		t.Errorf("got %v", err)
	}
}
