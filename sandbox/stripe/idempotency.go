package stripe

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// idempotency keeps the answers of POSTs by their keys, for a day from when they began.
type idempotency struct {
	mu   sync.Mutex
	kept map[string]*kept
}

type kept struct {
	asked   string // method, path and parameters
	at      time.Time
	done    bool
	status  int
	body    []byte
	request string // the id of the request that was executed
	version string
}

func newIdempotency() *idempotency { return &idempotency{kept: map[string]*kept{}} }

const (
	keptFor    = 24 * time.Hour
	longestKey = 255
)

// begin returns what is kept for a key, or a new entry that end or forget must close.
func (i *idempotency) begin(key, asked string, now time.Time) (k *kept, replay bool, err *Error) {
	if len(key) > longestKey {
		return nil, false, &Error{Status: http.StatusBadRequest, Type: "idempotency_error", Message: fmt.Sprintf("Idempotency keys can be at most %d characters.", longestKey)}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	k = i.kept[key]
	if k == nil || now.Sub(k.at) > keptFor {
		k = &kept{asked: asked, at: now}
		i.kept[key] = k
		return k, false, nil
	}
	if k.asked != asked {
		return nil, false, &Error{Status: http.StatusBadRequest, Type: "idempotency_error", Message: fmt.Sprintf(
			"Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '%s' if you meant to execute a different request.", key)}
	}
	if !k.done {
		return nil, false, &Error{Status: http.StatusConflict, Type: "idempotency_error", Code: "idempotency_key_in_use", retry: "true", Message: fmt.Sprintf(
			"There is currently another in-progress request using this Idempotent Key (that probably means you submitted twice, and the other request is still going through): %s. Please try again later.", key)}
	}
	return k, true, nil
}

func (i *idempotency) end(k *kept, status int, body []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	k.done, k.status, k.body = true, status, body
}

func (i *idempotency) forget(key string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.kept, key)
}

// prune drops what is too old; it is called now and then.
func (i *idempotency) prune(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for key, k := range i.kept {
		if now.Sub(k.at) > keptFor {
			delete(i.kept, key)
		}
	}
}

// write performs a POST or DELETE, once per idempotency key.
func (s *Sandbox) write(w http.ResponseWriter, q *request, found *route, raw string) (int, []byte, *Error) {
	if q.key == "" || q.method != http.MethodPost {
		return s.execute(q, found)
	}
	s.mu.RLock()
	once := s.once
	s.mu.RUnlock()
	w.Header().Set("Idempotency-Key", q.key)
	k, replay, err := once.begin(q.key, q.method+" "+q.path+" "+raw, q.now)
	if err != nil {
		return 0, nil, err
	}
	if replay {
		w.Header().Set("Idempotent-Replayed", "true")
		w.Header().Set("Original-Request", k.request)
		w.Header().Set("Stripe-Version", k.version)
		return k.status, k.body, nil
	}
	k.request, k.version = q.id, q.version
	w.Header().Set("Original-Request", q.id)
	status, body, err := s.execute(q, found)
	// What was refused before it had any effect may be asked again, corrected.
	if err != nil && err.Status != http.StatusPaymentRequired && err.Status < http.StatusInternalServerError {
		once.forget(q.key)
		return status, body, err
	}
	if err != nil {
		once.end(k, err.Status, err.body(q.id))
		return status, body, err
	}
	once.end(k, status, body)
	return status, body, nil
}

func (s *Sandbox) execute(q *request, found *route) (int, []byte, *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return q.run(found)
}
