package bench

import "context"

// Deliver measures.
func Deliver(ctx context.Context, o Options) error { return nil }
