package deliver

import (
	"context"
	"time"
)

// Claim is the right to settle one delivery, for those who take and settle within this
// process: nobody can forge what never leaves it, so nothing is signed and checked. It
// is given back to the consumer that it came from, while the process runs. Claims can
// be compared. It goes stale as a token does.
type Claim struct{ token token }

// AckClaims is Ack for claims, of which there may be any number.
func (c *Consumer) AckClaims(ctx context.Context, claims []Claim) (stale []Claim, err error) {
	return c.settleClaims(ctx, claims, c.acking)
}

// NackClaims is Nack for claims, of which there may be any number.
func (c *Consumer) NackClaims(ctx context.Context, claims []Claim, o NackOptions) (stale []Claim, err error) {
	apply, err := c.nacking(o)
	if err != nil {
		return nil, err
	}
	return c.settleClaims(ctx, claims, apply)
}

// ExtendClaims is Extend for claims, of which there may be any number.
func (c *Consumer) ExtendClaims(ctx context.Context, claims []Claim, by time.Duration) (stale []Claim, err error) {
	apply, err := c.extending(by)
	if err != nil {
		return nil, err
	}
	return c.settleClaims(ctx, claims, apply)
}

func (c *Consumer) settleClaims(ctx context.Context, claims []Claim, apply applying) ([]Claim, error) {
	if err := c.b.enter(); err != nil {
		return nil, err
	}
	defer c.b.leave()
	list := make([]named, len(claims))
	for i, claim := range claims {
		list[i] = named{token: claim.token, at: i, ours: true}
	}
	return settleAll(ctx, c, list, claims, apply)
}
