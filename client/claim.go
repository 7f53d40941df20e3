package client

import (
	"net/url"
	"time"
)

// Claim says on whose behalf consumers and syncs are made, changed and deleted, and from
// what the caller has seen of them. The zero value is a caller of the API like others.
type Claim struct {
	// AppliedFrom names the file that a definition is applied from. What is made or
	// changed with it is managed by apply from then on.
	AppliedFrom string
	// Override also changes and deletes what was applied from a file, or from another one.
	Override bool
	// Expected is the UpdatedAt that the caller has seen: what was changed since gives an
	// error that wraps lockstep.ErrConflict, and stays. Zero: whatever it is.
	Expected time.Time
}

// With returns a client that makes CreateConsumer, UpdateConsumer, DeleteConsumer and the
// same of syncs under a claim. It shares the connections of c.
func (c *Client) With(claim Claim) *Client {
	with := *c
	with.claim = claim
	return &with
}

// query returns what a claim adds to an address.
func (c Claim) query() url.Values {
	values := url.Values{}
	if c.AppliedFrom != "" {
		values.Set("applied_from", c.AppliedFrom)
	}
	if c.Override {
		values.Set("override", "true")
	}
	if !c.Expected.IsZero() {
		values.Set("expected_updated_at", c.Expected.UTC().Format(time.RFC3339Nano))
	}
	return values
}

// retry says whether a change may be made twice: one that expects the state before it
// would meet its own.
func (c Claim) retry() retry { return retry(c.Expected.IsZero()) }
