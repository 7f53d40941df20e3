package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// getRequest asks JetStream for stored messages without a consumer, so nothing is
// left behind in the server (ADR-31, direct get).
type getRequest struct {
	Seq      uint64     `json:"seq,omitempty"`
	NextFor  string     `json:"next_by_subj,omitempty"`
	LastFor  string     `json:"last_by_subj,omitempty"`
	Batch    int        `json:"batch,omitempty"`
	MaxBytes int64      `json:"max_bytes,omitempty"`
	Start    *time.Time `json:"start_time,omitempty"`
}

// get returns one message, or errMissing.
func (s *Server) get(ctx context.Context, stream string, r getRequest) (*nats.Msg, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := s.reads.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream, body)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", stream, unavailable(err))
	}
	return m, statusError(stream, m)
}

func statusError(stream string, m *nats.Msg) error {
	switch status := m.Header.Get("Status"); status {
	case "":
		return nil
	case "404":
		return errMissing
	default:
		return fmt.Errorf("read stream %s: %w", stream, unavailable(fmt.Errorf("status %s %s", status, m.Header.Get("Description"))))
	}
}

// getFromLeader is get by number, answered by the server that leads the stream: a
// direct get may be answered by a replica that has not got the message yet.
func (s *Server) getFromLeader(ctx context.Context, stream string, seq uint64) (nats.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := s.reads.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, fmt.Appendf(nil, `{"seq":%d}`, seq))
	if err != nil {
		return nil, nil, fmt.Errorf("read stream %s: %w", stream, unavailable(err))
	}
	var answer struct {
		Error   *apiError `json:"error"`
		Message struct {
			Header []byte `json:"hdrs"`
			Data   []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, nil, fmt.Errorf("read stream %s: %w", stream, unavailable(err))
	}
	if answer.Error != nil && answer.Error.Code == 404 {
		return nil, nil, errMissing
	}
	if answer.Error != nil {
		return nil, nil, fmt.Errorf("read stream %s: %w", stream, unavailable(errors.New(answer.Error.Description)))
	}
	var header nats.Header
	if len(answer.Message.Header) > 0 {
		if header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return nil, answer.Message.Data, nil // headers that cannot be read are none of ours
		}
	}
	return header, answer.Message.Data, nil
}

func fromDirect(m *nats.Msg) (*stored, error) {
	seq, err := strconv.ParseUint(m.Header.Get(headerStreamSeq), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("an answer of JetStream has no sequence: %w", unavailable(err))
	}
	return newStored(seq, m.Header, m.Data), nil
}

// load returns the message with that number, or errMissing when it is not there or
// JetStream itself finds it damaged.
func (l *Log) load(ctx context.Context, seq uint64) (*stored, error) {
	m, err := l.srv.get(ctx, l.stream, getRequest{Seq: seq})
	if err == nil {
		return fromDirect(m)
	}
	if !errors.Is(err, errMissing) {
		return nil, err
	}
	header, data, err := l.srv.getFromLeader(ctx, l.stream, seq)
	if err != nil {
		return nil, err
	}
	return newStored(seq, header, data), nil
}

// next returns the first message at or after that number, or errMissing.
func (l *Log) next(ctx context.Context, seq uint64) (*stored, error) {
	m, err := l.srv.get(ctx, l.stream, getRequest{Seq: seq, NextFor: l.subject})
	if err != nil {
		return nil, err
	}
	return fromDirect(m)
}

// loadBatch returns the batch that m is a part of, or nil when it is incomplete.
func (l *Log) loadBatch(ctx context.Context, m *stored) (*entry, error) {
	var parts assembly
	for seq := m.start(); seq < m.end()+1; seq++ {
		part := m
		if seq != m.seq {
			var err error
			if part, err = l.load(ctx, seq); errors.Is(err, errMissing) {
				return nil, nil
			} else if err != nil {
				return nil, err
			}
		}
		if !part.ours || part.part != seq-m.start()+1 {
			return nil, nil
		}
		e, err := parts.add(l.database, part)
		if e != nil || err != nil {
			return e, err
		}
	}
	return nil, nil
}

// window is a run of messages on its way from JetStream to one reader.
type window struct {
	srv    *Server
	sub    *nats.Subscription
	stream string
	next   uint64 // the message that the next one is expected to be, or a later one
	open   bool   // a request is being answered
	got    bool   // it brought at least one message
}

const (
	windowMessages = 1024
	windowBytes    = 4 << 20
	// windowPatience is how long a window may stand still: the connection was lost,
	// or the disk is very slow. The reader then asks again.
	windowPatience = 5 * time.Second
)

func (s *Server) openWindow(stream string, from uint64) (*window, error) {
	sub, err := s.reads.SubscribeSync(s.reads.NewInbox())
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", stream, unavailable(err))
	}
	// What is asked for bounds what arrives.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, errors.Join(err, sub.Unsubscribe())
	}
	s.behind.Add(1)
	return &window{srv: s, sub: sub, stream: stream, next: from}, nil
}

func (w *window) close() {
	w.srv.behind.Add(-1)
	_ = w.sub.Unsubscribe() // fails only when the connection is gone, and the subscription with it
}

// read returns the next message; errMissing when there is none at or after next
// that can be read.
func (w *window) read(ctx context.Context) (*stored, error) {
	ctx, cancel := context.WithTimeout(ctx, windowPatience)
	defer cancel()
	for {
		if !w.open {
			if err := w.ask(); err != nil {
				return nil, err
			}
		}
		m, err := w.sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("read stream %s: %w", w.stream, unavailable(err))
		}
		switch m.Header.Get("Status") {
		case "":
			w.got = true
			s, err := fromDirect(m)
			if err == nil {
				w.next = s.seq + 1
			}
			return s, err
		case "204": // the end of the answer
			w.open = false
			if !w.got {
				return nil, errMissing
			}
		default:
			w.open = false
			return nil, statusError(w.stream, m)
		}
	}
}

// ask requests the next messages: fewer bytes the more readers are behind, so that
// all of them together stay within the budget.
func (w *window) ask() error {
	share := w.srv.cfg.CacheBytes / max(w.srv.behind.Load(), 1)
	body, err := json.Marshal(getRequest{Seq: w.next, Batch: windowMessages, MaxBytes: max(1, min(share, windowBytes))})
	if err != nil {
		return err
	}
	w.open, w.got = true, false
	if err := w.srv.reads.PublishRequest("$JS.API.DIRECT.GET."+w.stream, w.sub.Subject, body); err != nil {
		return fmt.Errorf("read stream %s: %w", w.stream, unavailable(err))
	}
	return nil
}
