package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// page is the form of every list.
type page[T any] struct {
	Data []T    `json:"data"`
	Next string `json:"next_cursor"`
}

// all reads a list to its end.
func all[T any](ctx context.Context, c *Client, path ...string) ([]T, error) {
	return allOf[T](ctx, c, url.Values{}, path...)
}

// allOf is all for a list that the query narrows.
func allOf[T any](ctx context.Context, c *Client, query url.Values, path ...string) ([]T, error) {
	var out []T
	query.Set("limit", "1000")
	for {
		var p page[T]
		if err := c.do(ctx, call{method: http.MethodGet, path: path, query: query, retry: repeatable}, &p); err != nil {
			return nil, err
		}
		out = append(out, p.Data...)
		if p.Next == "" {
			return out, nil
		}
		query.Set("cursor", p.Next)
	}
}

// unexpected is the error for an answer that cannot be read.
func (c *Client) unexpected(k call, err error) error {
	return fmt.Errorf("%s %s: the answer is not what was expected, is %s a lockstep server of this version?: %w", k.method, c.address(k), c.base, err)
}
