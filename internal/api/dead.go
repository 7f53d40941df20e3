package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"lockstep"
	"lockstep/internal/auth"
)

type letterInput struct {
	ID  string `path:"id" doc:"Id or name"`
	Seq uint64 `path:"seq" doc:"The change's seq"`
}

func (a *API) deadRoutes() {
	for _, f := range families() {
		read := func(path string) Route {
			return Route{Method: http.MethodGet, Path: f.base + "/{id}/dead" + path, Need: auth.NeedRead, Consumer: true}
		}
		write := func(method, path, action string) Route {
			return Route{Method: method, Path: f.base + "/{id}/dead" + path, Need: auth.NeedWrite, Audit: "dead." + action, Consumer: true}
		}
		a.plain(read(""), about{f.noun + "-dead", "List dead letters", "dead letters", 200}, a.describeLetters, a.letters(f))
		a.plain(read("/{seq}"), about{f.noun + "-dead-letter", "Show a dead letter", "dead letters", 200}, a.describeLetter, a.letter(f))
		typedAudited(a, write(http.MethodPost, "/{seq}/retry", "retry"), about{f.noun + "-dead-retry", "Deliver a dead letter again", "dead letters", 204},
			a.onLetter(f, Consumer.RetryLetter))
		typedAudited(a, write(http.MethodDelete, "/{seq}", "drop"), about{f.noun + "-dead-drop", "Drop a dead letter: its change counts as settled", "dead letters", 204},
			a.onLetter(f, Consumer.DropLetter))
		typedAudited(a, write(http.MethodPost, "/retry", "retry"), about{f.noun + "-dead-retry-many", "Deliver many dead letters again; left tells to call again", "dead letters", 200}, a.retryLetters(f))
		typedAudited(a, write(http.MethodPost, "/drop", "drop"), about{f.noun + "-dead-drop-many", "Drop many dead letters; left tells to call again", "dead letters", 200}, a.dropLetters(f))
	}
}

// letters writes a page of dead letters. Messages are copied as they are: in a
// column of type json even the spaces are data.
func (a *API) letters(f family) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := a.consumer(f, r.PathValue("id"))
		if err != nil {
			a.fail(w, r, err)
			return
		}
		query, err := decodeLetterQuery(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		page, err := c.Letters(r.Context(), query)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		brief := r.URL.Query().Get("messages") == "false"
		buf := []byte(`{"data":[`)
		for i, l := range page.Letters {
			if i > 0 {
				buf = append(buf, ',')
			}
			if brief {
				l.Message = nil
			}
			buf = appendLetter(buf, l)
		}
		buf = append(buf, `],"next_cursor":`...)
		if page.Next == 0 {
			buf = append(buf, "null"...)
		} else {
			buf = append(strconv.AppendUint(append(buf, '"'), page.Next, 10), '"')
		}
		if page.Stopped {
			buf = append(buf, `,"stopped_early":true`...)
		}
		if page.Stopped || query.Key != "" || query.Reason != "" {
			buf = append(buf, `,"looked_at":`...)
			buf = strconv.AppendInt(buf, int64(page.Looked), 10)
		}
		writeBytes(w, append(buf, "}\n"...))
	}
}

func (a *API) letter(f family) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := a.consumer(f, r.PathValue("id"))
		if err != nil {
			a.fail(w, r, err)
			return
		}
		seq, err := pathSeq(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		l, err := c.Letter(r.Context(), seq)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		writeBytes(w, append(appendLetter(nil, l), '\n'))
	}
}

func appendLetter(dst []byte, l Letter) []byte {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, l.Seq, 10)
	dst = append(dst, `,"state":`...)
	dst = lockstep.AppendJSONString(dst, l.State)
	dst = append(dst, `,"reason":`...)
	dst = lockstep.AppendJSONString(dst, l.Reason)
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendInt(dst, int64(l.Attempts), 10)
	dst = append(dst, `,"at":"`...)
	dst = l.At.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","table":`...)
	dst = lockstep.AppendJSONString(dst, l.Table)
	dst = append(dst, `,"record_pks":`...)
	dst = appendOr(dst, l.PKs, "[]")
	dst = append(dst, `,"message":`...)
	return append(appendOr(dst, l.Message, "null"), '}')
}

func appendOr(dst, json []byte, otherwise string) []byte {
	if len(json) == 0 {
		return append(dst, otherwise...)
	}
	return append(dst, json...)
}

func writeBytes(w http.ResponseWriter, json []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(json)))
	_, _ = w.Write(json) // a caller that has gone needs no error
}

func pathSeq(r *http.Request) (uint64, error) {
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 63)
	if err != nil || seq == 0 {
		return 0, bad("path.seq", "%q is not a seq: they are whole numbers from 1", r.PathValue("seq"))
	}
	return seq, nil
}

func (a *API) onLetter(f family, do func(Consumer, context.Context, uint64) error) func(context.Context, *letterInput) (*emptyOutput, note, error) {
	return func(ctx context.Context, in *letterInput) (*emptyOutput, note, error) {
		c, err := a.consumer(f, in.ID)
		if err != nil {
			return nil, note{}, err
		}
		if err := do(c, ctx, in.Seq); err != nil {
			return nil, note{}, err
		}
		target := c.Definition().Name + "/" + strconv.FormatUint(in.Seq, 10)
		return nil, note{target: target}, nil
	}
}
