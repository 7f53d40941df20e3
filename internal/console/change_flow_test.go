package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"sync"
	"testing"

	permissions "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// receiver takes what webhooks send.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	bodys []string // guarded by mu
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		text, err := io.ReadAll(q.Body)
		if err != nil {
			return // whoever sent it went away, and sends it again
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodys = append(r.bodys, string(text))
	}))
	t.Cleanup(r.Close)
	return r
}

// got returns the seqs of what came, in their order.
func (r *receiver) got(t testing.TB) []uint64 {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var seqs []uint64
	for _, text := range r.bodys {
		c, err := client.ParseChange([]byte(text))
		if err != nil {
			t.Fatalf("a webhook sent %s: %v", text, err)
		}
		seqs = append(seqs, c.Metadata.Seq)
	}
	return seqs
}

// TestAChangeIsTakenAlongAndDeliveredAgain begins in the stream, as a person does who
// looks for what became of a row.
func TestAChangeIsTakenAlongAndDeliveredAgain(t *testing.T) {
	t.Parallel()
	one, other := newReceiver(t), newReceiver(t)
	n := newNode(t, fmt.Sprintf(`  - name: shop
    kind: webhook
    tables: [public.orders]
    webhook: {url: %q, allow_private: true, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
  - name: office
    kind: webhook
    tables: [public.orders]
    webhook: {url: %q, allow_private: true, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
`, one.URL, other.URL))
	pgtest.Exec(t, n.pg, orders(1, 5))
	for _, r := range []*receiver{one, other} {
		n.eventually("the webhooks to get everything", func() bool { return len(r.got(t)) == 5 })
	}
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.leads("Stream")
	b.fill("tables", "public.orders")
	b.fill("key", "3")
	b.fill("from", "100")
	b.leads("Show")
	b.wait("the change of the row", "document.querySelectorAll('#tail a').length === 1")
	seq := b.eval("document.querySelector('#tail a').innerText")
	b.leads(seq)

	t.Run("the curl that it shows gets this change", func(t *testing.T) { takenAlong(t, n, b, seq) })
	t.Run("one consumer gets it again, and nothing else", func(t *testing.T) {
		within(t, n, b)
		k, err := n.api.Consumer(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		before := one.got(t)
		b.fill("consumer", k.ID)
		b.leads("Deliver again")
		b.says("Change " + seq + " is on its way again.")
		n.eventually("the webhook to get it again", func() bool { return len(one.got(t)) > len(before) })
		b.wait("the page to say that it is settled", "[...document.querySelectorAll('#live tbody tr')].filter(r => r.innerText.includes('settled')).length === 2")
		want := append(slices.Clone(before), before[slices.IndexFunc(before, func(s uint64) bool { return fmt.Sprint(s) == seq })])
		if got := one.got(t); !slices.Equal(got, want) {
			t.Errorf("it got %v, want %v", got, want)
		}
		if got := other.got(t); len(got) != 5 {
			t.Errorf("the other one got %v", got)
		}
	})
	b.silent("a change's page")
}

// takenAlong copies the curl of a change's page and runs it with a shell.
func takenAlong(t *testing.T, n *node, b *browser, seq string) {
	t.Helper()
	within(t, n, b)
	b.do(func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, permissions.SetPermission, permissions.SetPermissionParams{Permission: &permissions.PermissionDescriptor{Name: "clipboard-read"}, Setting: "granted"})
		return chromedp.Void{}, err
	})
	b.press("Copy")
	b.wait("the button to say so", "[...document.querySelectorAll('main button')].some(e => e.innerText === 'Copied')")
	command := exec.CommandContext(t.Context(), "sh", "-c", b.eval("navigator.clipboard.readText()"))
	command.Env = append(command.Environ(), "LOCKSTEP_TOKEN="+adminToken)
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	var got struct {
		Record   struct{ ID int }
		Metadata struct{ Seq json.Number }
	}
	if err := json.Unmarshal(bytes.TrimSpace(out), &got); err != nil || got.Record.ID != 3 || got.Metadata.Seq.String() != seq {
		t.Errorf("%s prints %s (%v), want change %s", command, out, err, seq)
	}
}
