package wal

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	answerEvery   = 10 * time.Second
	progressEvery = 100 * time.Millisecond // between answers that only tell progress
	writeTimeout  = 10 * time.Second
	leaveTimeout  = time.Second
)

// answerInterval is how often Postgres hears of us: a third of the time after
// which it would give us up.
func answerInterval(senderTimeout time.Duration) time.Duration {
	if senderTimeout <= 0 {
		return answerEvery
	}
	return max(min(answerEvery, senderTimeout/3), 10*time.Millisecond)
}

// answer tells Postgres how far things are: at intervals, when it asks, and soon
// after batches have reached the disk. It is the only writer of the socket. It
// ends with ctx, or when the server is silent for too long.
func (s *session) answer(ctx context.Context) error {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	soon := time.NewTimer(0) // fires at once: the first answer tells where we are
	defer soon.Stop()
	var last time.Time
	for {
		request := requestNone
		select {
		case <-ctx.Done():
			return nil
		case <-s.asked:
		case <-s.flight.moved:
			soon.Reset(time.Until(last.Add(progressEvery)))
			continue
		case <-soon.C:
		case <-tick.C:
			if err := s.checkSilence(); err != nil {
				return err
			}
			request = requestReply
		}
		last = time.Now()
		if err := s.update(request); err != nil {
			return err
		}
	}
}

// checkSilence fails when the reader has been waiting for too long: a living
// server answers the requests that go with every tick. While the reader waits for
// the log instead, the silence is ours.
func (s *session) checkSilence() error {
	since := s.waiting.Load()
	if since == 0 || time.Since(time.Unix(0, since)) < s.silence {
		return nil
	}
	return fmt.Errorf("nothing from Postgres for %s: %w", s.silence, errSilent)
}

// The last byte of a status update.
const (
	requestNone  byte = 0
	requestReply byte = 1
)

// update sends a standby status update. Written and applied are given in full: a
// zero would be filled in by Postgres in its own way.
func (s *session) update(request byte) error {
	durable := s.flight.durable.Load()
	b := make([]byte, 0, 39)
	b = append(b, 'd', 0, 0, 0, 38, 'r')
	b = binary.BigEndian.AppendUint64(b, max(s.received.Load(), durable))
	b = binary.BigEndian.AppendUint64(b, durable)
	b = binary.BigEndian.AppendUint64(b, durable)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMicro()-postgresEpoch))
	b = append(b, request)
	return s.write(b)
}

func (s *session) write(b []byte) error {
	if err := s.wire.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("answer Postgres: %w", err)
	}
	if _, err := s.wire.conn.Write(b); err != nil {
		return fmt.Errorf("answer Postgres: %w", err)
	}
	return nil
}

// leave tells Postgres the last position, ends replication, waits a moment for
// Postgres to let go of the slot, and closes the connection. When the connection
// is broken there is nobody to tell.
func (s *session) leave() {
	defer s.wire.abandon()
	if s.update(requestNone) != nil || s.write([]byte{'c', 0, 0, 0, 4}) != nil {
		return
	}
	if s.wire.conn.SetReadDeadline(time.Now().Add(leaveTimeout)) != nil {
		return
	}
	for s.skipToReady() {
		if _, err := s.frames.fill(); err != nil {
			return
		}
	}
	_ = s.write([]byte{'X', 0, 0, 0, 4})
}

// skipToReady drops the frames that were read, and reports whether more are to
// come before the server is ready for another command.
func (s *session) skipToReady() bool {
	for {
		kind, _, ok, err := s.frames.next()
		if err != nil || kind == 'Z' {
			return false
		}
		if !ok {
			return true
		}
	}
}
