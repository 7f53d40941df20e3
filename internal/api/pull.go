package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
)

// The hot routes read and write bytes themselves: a change's row is appended from
// the log's memory to the answer, and is never decoded.

const (
	chunkBytes  = 256 << 10        // an answer up to this size is sent at once, with its length
	answerLimit = 60 * time.Second // a worker that takes nothing for so long has gone
)

func (a *API) pullRoutes() {
	for _, f := range families() {
		at := func(method, name string) Route {
			return Route{Method: method, Path: f.base + "/{id}/" + name, Need: auth.NeedConsume, Consumer: true}
		}
		id := func(verb string) string { return f.noun + "-" + verb }
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			next := at(method, "next")
			next.Waits, next.Takes = true, true
			doc := about{id("next"), "Take changes; waits for some up to wait_for", "pull", 200}
			describe := a.describeNext
			if method == http.MethodPost {
				doc.id, describe = id("next-by-body"), a.describeNextBody
			}
			a.plain(next, doc, describe, a.next(f))
		}
		a.plain(at(http.MethodPost, "ack"), about{id("ack"), "Settle changes for good", "pull", 204}, a.describeSettle(verbAck), a.settle(f, verbAck))
		a.plain(at(http.MethodPost, "nack"), about{id("nack"), "Give changes back, with every later one of their keys", "pull", 204}, a.describeSettle(verbNack), a.settle(f, verbNack))
		a.plain(at(http.MethodPost, "extend"), about{id("extend"), "Hold changes longer, up to 12 h in all", "pull", 204}, a.describeSettle(verbExtend), a.settle(f, verbExtend))
		peek := at(http.MethodGet, "peek")
		peek.Need = auth.NeedPeek
		a.plain(peek, about{id("peek"), "Look at what comes next without taking it", "pull", 200}, a.describePeek, a.peek(f))
	}
}

// puller finds a consumer whose changes are taken by calls.
func (a *API) puller(f family, r *http.Request) (Consumer, error) {
	c, err := a.consumer(f, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if d := c.Definition(); d.Kind != "http" {
		return nil, fmt.Errorf("consumer %q is of kind %s: it sends its changes itself: %w", d.Name, d.Kind, lockstep.ErrConflict)
	}
	return c, nil
}

func (a *API) next(f family) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := a.puller(f, r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		in, err := decodeNext(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		ctx := r.Context()
		if in.Wait > 0 {
			waitsLong(w)
			var cancel context.CancelFunc
			ctx, cancel = a.drain.until(ctx)
			defer cancel()
		}
		out, err := c.Next(ctx, in.Batch, in.Wait, holderOf(r))
		if err != nil && (ctx.Err() == nil || r.Context().Err() != nil) {
			a.fail(w, r, err)
			return
		}
		// Otherwise the node is stopping: what there is, also nothing, is an answer.
		writesUntil(w, answerLimit)
		a.writeHandout(w, out)
	}
}

// holderOf names who takes changes, for people who ask why a key is stuck.
func holderOf(r *http.Request) string {
	who := callerOf(r.Context())
	return who.Name + "@" + who.remote
}

// buffers holds chunks for answers.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, chunkBytes+chunkBytes/4)
}

func (b *buffers) put(buf []byte) {
	if cap(buf) <= 4*chunkBytes { // one huge change must not stay in memory
		b.pool.Put(&buf)
	}
}

// writeHandout writes the answer of next. Small ones go out at once, with their
// length; larger ones in chunks, so that memory stays bounded by the largest change.
func (a *API) writeHandout(w http.ResponseWriter, out Handout) {
	w.Header().Set("Content-Type", "application/json")
	buf := append(a.buffers.get(), `{"data":[`...)
	whole := true
	for i := range out.N {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = out.Append(buf, i)
		if len(buf) < chunkBytes {
			continue
		}
		whole = false
		if _, err := w.Write(buf); err != nil {
			// The worker has gone; the leases of what it did not get run out.
			a.buffers.put(buf)
			return
		}
		buf = buf[:0]
	}
	buf = append(buf, `],"info":{"num_pending":`...)
	buf = strconv.AppendUint(buf, out.Pending, 10)
	buf = append(buf, `,"num_ack_pending":`...)
	buf = strconv.AppendUint(buf, out.AckPending, 10)
	buf = append(buf, "}}\n"...)
	if whole {
		w.Header().Set("Content-Length", strconv.Itoa(len(buf)))
	}
	_, _ = w.Write(buf) // as above
	a.buffers.put(buf)
}

func (a *API) settle(f family, v verb) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := a.puller(f, r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		data, err := body(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		in, err := decodeSettle(v, data)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		stale, err := settleBy(r.Context(), c, v, in)
		switch {
		case err != nil:
			a.fail(w, r, err)
		case len(stale) > 0:
			p := problem(http.StatusConflict, fmt.Sprintf("%d of %d tokens are not valid any more: the changes were given back or handed to somebody else; the others were applied", len(stale), len(in.Tokens)))
			p.Stale = stale
			p.write(w)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}
}

func settleBy(ctx context.Context, c Consumer, v verb, in settleRequest) (stale []string, err error) {
	switch v {
	case verbNack:
		o := deliver.NackOptions{Reason: in.Reason}
		if in.Release {
			o.Mode = deliver.Release
		}
		if in.Delay.set {
			o.Delay = &in.Delay.d
		}
		return c.Nack(ctx, in.Tokens, o)
	case verbExtend:
		return c.Extend(ctx, in.Tokens, in.By.d)
	case verbAck:
	}
	return c.Ack(ctx, in.Tokens)
}

func (a *API) peek(f family) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := a.consumer(f, r.PathValue("id"))
		if err != nil {
			a.fail(w, r, err)
			return
		}
		limit, err := number(r, "limit", 10, 1, maxBatchSize)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		buf := append(a.buffers.get(), `{"data":[`...)
		n := 0
		err = c.Peek(r.Context(), limit, func(message []byte) error {
			if n++; n > 1 {
				buf = append(buf, ',')
			}
			buf = append(buf, message...)
			return nil
		})
		if err != nil {
			a.fail(w, r, err)
			return
		}
		s := c.Standing()
		buf = append(buf, `],"info":{"num_pending":`...)
		buf = strconv.AppendUint(buf, s.Pending, 10)
		buf = append(buf, `,"num_ack_pending":`...)
		buf = strconv.AppendUint(buf, s.InFlight, 10)
		buf = append(buf, "}}\n"...)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(buf)))
		_, _ = w.Write(buf) // a caller that has gone needs no error
		a.buffers.put(buf)
	}
}

// number reads a whole number from the query.
func number(r *http.Request, name string, otherwise, low, high int) (int, error) {
	if !r.URL.Query().Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil || n < low || n > high {
		return 0, bad("query."+name, "%s must be a whole number from %d to %d", name, low, high)
	}
	return n, nil
}

// What follows is for the documentation only.

func queryParam(name, text string, schema *huma.Schema) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: text, Schema: schema}
}

func textSchema() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }

func numberSchema(low, high, otherwise int) *huma.Schema {
	min_, max_ := float64(low), float64(high)
	return &huma.Schema{Type: huma.TypeInteger, Minimum: &min_, Maximum: &max_, Default: otherwise}
}
