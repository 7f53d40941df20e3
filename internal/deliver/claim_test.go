package deliver_test

import (
	"testing"
	"time"

	"lockstep/internal/deliver"
)

// claimed takes n changes for one who settles by claims.
func claimed(t *testing.T, c *deliver.Consumer, n int) []deliver.Delivery {
	t.Helper()
	result, err := c.Next(t.Context(), deliver.NextRequest{Batch: n, Claims: true})
	if err != nil {
		t.Fatal(err)
	}
	return result.Deliveries
}

func TestClaimsSettleAsTokensDo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "c")...)
	c := r.put(definition(nil))
	ds := claimed(t, c, 3)
	want(t, "taken", ds, "a@1 b@2 c@3")
	for _, d := range ds {
		if d.Token != "" {
			t.Errorf("change %d has the token %q: nobody asked for one", d.Record.Seq(), d.Token)
		}
	}
	// The order of the call does not matter.
	stale, err := c.AckClaims(t.Context(), []deliver.Claim{ds[1].Claim, ds[0].Claim})
	if err != nil || len(stale) > 0 {
		t.Fatalf("ack: %d stale, %v", len(stale), err)
	}
	if stale, err := c.AckClaims(t.Context(), []deliver.Claim{ds[0].Claim}); err != nil || len(stale) > 0 {
		t.Errorf("the same once more: %d stale, %v", len(stale), err)
	}
	if stale, err := c.NackClaims(t.Context(), []deliver.Claim{ds[2].Claim}, deliver.NackOptions{Mode: deliver.Release}); err != nil || len(stale) > 0 {
		t.Errorf("nack: %d stale, %v", len(stale), err)
	}
	want(t, "what comes back", next(t, c, 3), "c@3")
}

func TestAClaimIsStaleWhenAnotherHasTheChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	c := r.put(definition(nil))
	ds := claimed(t, c, 2)
	if _, err := c.NackClaims(t.Context(), []deliver.Claim{ds[0].Claim}, deliver.NackOptions{Mode: deliver.Release}); err != nil {
		t.Fatal(err)
	}
	second := claimed(t, c, 1)
	want(t, "taken by another", second, "a@1")
	for what, settle := range map[string]func() ([]deliver.Claim, error){
		"ack": func() ([]deliver.Claim, error) {
			return c.AckClaims(t.Context(), []deliver.Claim{ds[0].Claim, ds[1].Claim})
		},
		"extend": func() ([]deliver.Claim, error) {
			return c.ExtendClaims(t.Context(), []deliver.Claim{ds[0].Claim}, time.Hour)
		},
	} {
		if stale, err := settle(); err != nil || len(stale) != 1 || stale[0] != ds[0].Claim {
			t.Errorf("%s: stale %v, %v", what, stale, err)
		}
	}
	if stale, err := c.AckClaims(t.Context(), []deliver.Claim{second[0].Claim}); err != nil || len(stale) > 0 {
		t.Errorf("ack by the one who has it: %d stale, %v", len(stale), err)
	}
}
