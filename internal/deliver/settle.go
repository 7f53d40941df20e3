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

// named is a token, and where it stood in the call.
type named struct {
	token
	at   int
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
		list[i] = named{token: t, at: i, ours: ours}
	}
	return list, nil
}

// Ack settles changes. When it returns without an error, all of them but those
// whose tokens are in stale are settled on disk; a token that did so before counts
// again. lockstep.ErrInvalid: a token is malformed, and nothing was applied.
// lockstep.ErrUnavailable: try again with the same tokens.
func (c *Consumer) Ack(ctx context.Context, tokens []string) (stale []string, err error) {
	return c.settleTexts(ctx, tokens, c.acking)
}

// Nack gives changes back, and with each the later ones of its key that went out
// with it. Stale tokens are returned, the others applied; errors are those of Ack.
func (c *Consumer) Nack(ctx context.Context, tokens []string, o NackOptions) (stale []string, err error) {
	apply, err := c.nacking(o)
	if err != nil {
		return nil, err
	}
	return c.settleTexts(ctx, tokens, apply)
}

// Extend moves the ends of leases to by from now, where that is later, at most
// twelve hours after the hand-out. Stale tokens are returned, the others applied.
func (c *Consumer) Extend(ctx context.Context, tokens []string, by time.Duration) (stale []string, err error) {
	apply, err := c.extending(by)
	if err != nil {
		return nil, err
	}
	return c.settleTexts(ctx, tokens, apply)
}

// applying is what a call does with each of its tokens. The caller holds mu.
type applying func(token) verdict

func (c *Consumer) acking(t token) verdict { return c.w.ack(t) }

func (c *Consumer) nacking(o NackOptions) (applying, error) {
	if o.Mode != Retry && o.Mode != Release {
		return nil, fmt.Errorf("nack mode %d: %w", o.Mode, lockstep.ErrInvalid)
	}
	if o.Delay != nil && (*o.Delay < 0 || *o.Delay > maxBackoff) {
		return nil, fmt.Errorf("nack with a delay of %s: use 0s to %s: %w", *o.Delay, maxBackoff, lockstep.ErrInvalid)
	}
	o.Reason = shorten(o.Reason)
	covered := map[uint64]uint64{}
	return func(t token) verdict { return c.w.nack(t, o, covered) }, nil
}

func (c *Consumer) extending(by time.Duration) (applying, error) {
	if by <= 0 || by > MaxAckWait {
		return nil, fmt.Errorf("extend by %s: use more than 0s, up to %s: %w", by, MaxAckWait, lockstep.ErrInvalid)
	}
	return func(t token) verdict {
		if v := c.w.extend(t, by); v == applied {
			return settled // nothing that must be saved
		}
		return 0
	}, nil
}

// settleTexts is settleAll for tokens as they came.
func (c *Consumer) settleTexts(ctx context.Context, texts []string, apply applying) ([]string, error) {
	if err := c.b.enter(); err != nil {
		return nil, err
	}
	defer c.b.leave()
	list, err := c.parse(texts)
	if err != nil {
		return nil, err
	}
	return settleAll(ctx, c, list, texts, apply)
}

// settleAll applies one token after the other, by ascending seq, and waits until what
// they did is on disk. It returns those of names, which stand for the tokens, that are
// stale.
func settleAll[T any](ctx context.Context, c *Consumer, list []named, names []T, apply applying) (refused []T, err error) {
	bySeq := func(a, b named) int { return cmp.Compare(a.seq, b.seq) }
	if !slices.IsSortedFunc(list, bySeq) {
		slices.SortStableFunc(list, bySeq)
	}
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
			refused = append(refused, names[t.at])
			continue
		}
		switch apply(t.token) {
		case stale:
			refused = append(refused, names[t.at])
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
