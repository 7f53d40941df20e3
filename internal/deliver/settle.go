package deliver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"lockstep"
)

// MaxTokens is how many tokens one call takes.
const MaxTokens = 10_000

// named is a token with its text.
type named struct {
	token
	text string
	ours bool
}

// parse reads tokens. A malformed one fails the call before anything is applied.
func (c *Consumer) parse(texts []string) ([]named, error) {
	if len(texts) == 0 || len(texts) > MaxTokens {
		return nil, fmt.Errorf("%d ack tokens: send 1 to %d: %w", len(texts), MaxTokens, lockstep.ErrInvalid)
	}
	list := make([]named, len(texts))
	for i, text := range texts {
		t, ours, err := c.signer.parse(text)
		if err != nil {
			return nil, fmt.Errorf("token %d of %d: %w", i+1, len(texts), err)
		}
		list[i] = named{token: t, text: text, ours: ours}
	}
	return list, nil
}

// Ack settles changes. When it returns without an error, all of them but those
// whose tokens are in stale are settled on disk; a token that did so before counts
// again. lockstep.ErrInvalid: a token is malformed, and nothing was applied.
// lockstep.ErrUnavailable: try again with the same tokens.
func (c *Consumer) Ack(ctx context.Context, tokens []string) (stale []string, err error) {
	return c.settleAll(ctx, tokens, func(t named) verdict { return c.w.ack(t.token) })
}

// Nack gives changes back, and with each the later ones of its key that went out
// with it. Stale tokens are returned, the others applied; errors are those of Ack.
func (c *Consumer) Nack(ctx context.Context, tokens []string, o NackOptions) (stale []string, err error) {
	if o.Mode != Retry && o.Mode != Release {
		return nil, fmt.Errorf("nack mode %d: %w", o.Mode, lockstep.ErrInvalid)
	}
	if o.Delay != nil && (*o.Delay < 0 || *o.Delay > maxBackoff) {
		return nil, fmt.Errorf("nack with a delay of %s: use 0s to %s: %w", *o.Delay, maxBackoff, lockstep.ErrInvalid)
	}
	o.Reason = shorten(o.Reason)
	covered := map[uint64]uint64{}
	return c.settleAll(ctx, tokens, func(t named) verdict { return c.w.nack(t.token, o, covered) })
}

// Extend moves the ends of leases to by from now, where that is later, at most
// twelve hours after the hand-out. Stale tokens are returned, the others applied.
func (c *Consumer) Extend(ctx context.Context, tokens []string, by time.Duration) (stale []string, err error) {
	if by <= 0 || by > MaxAckWait {
		return nil, fmt.Errorf("extend by %s: use more than 0s, up to %s: %w", by, MaxAckWait, lockstep.ErrInvalid)
	}
	return c.settleAll(ctx, tokens, func(t named) verdict {
		if v := c.w.extend(t.token, by); v == applied {
			return settled // nothing that must be saved
		}
		return 0
	})
}

// settleAll applies one token after the other, by ascending seq, and waits until
// what they did is on disk.
func (c *Consumer) settleAll(ctx context.Context, texts []string, apply func(named) verdict) (refused []string, err error) {
	if err := c.b.enter(); err != nil {
		return nil, err
	}
	defer c.b.leave()
	list, err := c.parse(texts)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b named) int { return cmp.Compare(a.seq, b.seq) })
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.syncHead()
	c.passTime()
	save := false
	for _, t := range list {
		if !t.ours {
			refused = append(refused, t.text)
			continue
		}
		switch apply(t) {
		case stale:
			refused = append(refused, t.text)
		case applied, pending:
			save = true
		case settled:
		}
	}
	var group *saveGroup
	if save {
		group = c.requestSave()
	}
	c.settleDown()
	c.mu.Unlock()
	if group == nil {
		return refused, nil
	}
	return refused, group.await(ctx)
}

// reasonLimit bounds the text of a reason.
const reasonLimit = 2000

func shorten(reason string) string {
	if len(reason) <= reasonLimit {
		return reason
	}
	return reason[:reasonLimit] + "…"
}
