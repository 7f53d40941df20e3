package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// receiver is an endpoint for webhooks in this process. Each run has a path of its own,
// so that what is still on its way when a run is over is not counted in the next one.
type receiver struct {
	url   string
	close func() error

	mu   sync.Mutex
	runs map[string]*arrivals // by path
}

func newReceiver() (*receiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{url: "http://" + listener.Addr().String(), runs: map[string]*arrivals{}}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	r.close = func() error {
		err := server.Close()
		if how := <-ended; !errors.Is(how, http.ErrServerClosed) {
			err = errors.Join(err, how)
		}
		return err
	}
	return r, nil
}

// expect begins a run, and returns where its requests go.
func (r *receiver) expect(name string, a *arrivals) (url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs["/"+name] = a
	return r.url + "/" + name
}

// over ends a run: its path answers 200 and counts nothing from here on.
func (r *receiver) over(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.runs, "/"+name)
}

// ServeHTTP reads the request to its end and counts what is in it.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return // the sender is told by the broken connection
	}
	r.mu.Lock()
	a := r.runs[q.URL.Path]
	r.mu.Unlock()
	if a == nil {
		return
	}
	if status := a.arrive(body, time.Now()); status != http.StatusOK {
		w.WriteHeader(status)
	}
}

// arrivals is what came in one run. It may be used concurrently.
type arrivals struct {
	want    int           // changes
	behind  uint64        // seqs up to it are not counted
	untimed uint64        // seqs up to it are counted without their time
	again   repeats       // whether a seq may come again
	status  int           // what is answered; 0: 200. Only 200 counts
	keep    int           // how many bodies are kept
	full    chan struct{} // closed when that many changes came

	mu       sync.Mutex // guards what follows
	seen     bitmap
	count    int // changes
	requests int
	took     []time.Duration // from the commit of each change
	bodies   [][]byte
	failed   error
}

func newArrivals(behind uint64, want int) *arrivals {
	return &arrivals{want: want, behind: behind, full: make(chan struct{})}
}

func (a *arrivals) arrive(body []byte, now time.Time) (status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests++
	if a.status != 0 {
		return a.status
	}
	if len(a.bodies) < a.keep {
		a.bodies = append(a.bodies, body)
	}
	before := a.count
	if err := eachChange(body, func(seq uint64, commit time.Time) error { return a.change(seq, now.Sub(commit)) }); err != nil {
		a.failed = errors.Join(a.failed, err)
	}
	if before < a.want && a.count >= a.want {
		close(a.full)
	}
	return http.StatusOK
}

// change counts one change. The caller holds mu.
func (a *arrivals) change(seq uint64, took time.Duration) error {
	if seq <= a.behind {
		return nil // of what was written before the run
	}
	if a.seen.add(seq-a.behind) && a.again == never {
		return fmt.Errorf("change %d came twice", seq)
	}
	a.count++
	if seq > a.untimed {
		a.took = append(a.took, took)
	}
	return nil
}

// whole waits until everything came. A while without any change is an error.
func (a *arrivals) whole(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last, heard := -1, time.Now()
	for {
		select {
		case <-a.full:
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.failed
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		a.mu.Lock()
		count, failed := a.count, a.failed
		a.mu.Unlock()
		if failed != nil {
			return failed
		}
		if count != last {
			last, heard = count, time.Now()
		}
		if time.Since(heard) > patience {
			return fmt.Errorf("%d of %d changes came, and then nothing for %s", count, a.want, patience)
		}
	}
}

// at returns a quantile of the times from the commits, in milliseconds.
func (a *arrivals) at(quantile float64) float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return quantileMS(a.took, quantile)
}

// quantileMS returns a quantile in milliseconds; 0 of nothing.
func quantileMS(all []time.Duration, quantile float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return float64(sorted[min(int(quantile*float64(len(sorted))), len(sorted)-1)].Microseconds()) / 1000
}

// asked returns how many requests came, and how many changes.
func (a *arrivals) asked() (requests, changes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests, a.count
}

// kept returns the bodies that were kept.
func (a *arrivals) kept() [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bodies
}

// eachChange finds the changes of a body by their metadata. It does not decode: that
// would cost the receiver more than everything else does, and it shares the machine. No
// row of the benchmark holds such members.
func eachChange(body []byte, do func(seq uint64, commit time.Time) error) error {
	found := 0
	for {
		seq, rest, ok := member(body, `"seq":`, ",}")
		if !ok {
			break
		}
		text, rest, ok := member(rest, `"commit_timestamp":"`, `"`)
		if !ok {
			return errors.New("a change without a commit_timestamp came")
		}
		n, err := strconv.ParseUint(seq, 10, 64)
		if err != nil {
			return fmt.Errorf("a change came whose seq is no number: %w", err)
		}
		commit, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return fmt.Errorf("change %d: %w", n, err)
		}
		if err := do(n, commit); err != nil {
			return err
		}
		found, body = found+1, rest
	}
	if found == 0 {
		return errors.New("a request without a change came")
	}
	return nil
}

// member returns what stands behind the name, and the rest behind that.
func member(body []byte, name, ends string) (value string, rest []byte, ok bool) {
	at := bytes.Index(body, []byte(name))
	if at < 0 {
		return "", nil, false
	}
	body = body[at+len(name):]
	end := bytes.IndexAny(body, ends)
	if end < 0 {
		return "", nil, false
	}
	return string(body[:end]), body[end:], true
}
