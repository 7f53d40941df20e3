package engine

import "context"

// lifetime is how long a database is there. One that captures anew with other tables
// keeps it.
type lifetime struct {
	until context.Context //nolint:containedctx // a signal only: it ends when the database is deleted
	end   context.CancelFunc
}

func newLifetime() *lifetime {
	until, end := context.WithCancel(context.Background())
	return &lifetime{until, end}
}
