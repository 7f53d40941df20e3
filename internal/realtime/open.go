package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// open joins the channel, and sends what it missed. It runs beside the socket's reader
// and ends with ctx, which is the channel's life.
func (c *channel) open(ctx context.Context, ref json.RawMessage) {
	waiting, cancel := context.WithTimeout(ctx, c.socket.server.config.Limits.JoinWait)
	defer cancel()
	ids := c.join.ids()
	seq, unbound, err := c.prepare(waiting, ids)
	if err != nil {
		if c.shut() {
			c.reply(ref, "error", reasonOf(err.Error()))
		}
		return
	}
	if !c.enter(ref, ids) {
		return
	}
	if c.join.ready {
		c.push("system", appendSystemOf(nil, "system", "ok", "Replication connection established", c.name))
	}
	switch {
	case unbound != nil:
		c.push("system", appendSystem(nil, "error", unbound.Error(), c.name))
		return
	case c.sub == nil:
		return
	}
	c.push("system", appendSystem(nil, "ok", "Subscribed to PostgreSQL", c.name))
	if err := c.replay(ctx, c.begin(seq)); err != nil && ctx.Err() == nil && !errors.Is(err, errEnded) {
		c.socket.server.config.Logger.WarnContext(ctx, "changes cannot be sent to a channel", obs.KeyDatabase, c.socket.database, obs.KeyError, err)
		c.fail("UnableToReplayMessages: the changes cannot be read for now; join again")
	}
}

func reasonOf(text string) string {
	return `{"reason":` + string(lockstep.AppendJSONString(nil, text)) + "}"
}

// prepare does everything that may refuse the join: token, bindings, capture. The seq
// is that from which on nothing is missed. An error refuses the join; unbound tells
// why the bindings cannot be, when the join holds all the same.
func (c *channel) prepare(ctx context.Context, ids []uint32) (seq uint64, unbound, err error) {
	token := c.join.token
	// The real server takes its own publishable keys for the socket's key, too.
	if token == "" || len(token) > 3 && token[:3] == "sb_" {
		token = c.socket.token
	}
	claims, err := c.socket.server.authorize(ctx, token)
	if err != nil {
		return 0, nil, refusal("Unauthorized: " + err.Error())
	}
	c.mu.Lock()
	c.token, c.expires = token, claims.Expires
	c.mu.Unlock()
	if _, err := c.socket.server.feed(c.socket.database); errors.Is(err, lockstep.ErrNotFound) {
		return 0, nil, refusal("UnableToConnectToProject: the database " + strconv.Quote(c.socket.database) + " is not there any more")
	}
	if len(c.join.changes) > 0 {
		if unbound = c.bind(ctx, ids); unbound != nil && c.join.wait {
			return 0, nil, refusal("RealtimeDisabledForConfiguration: " + unbound.Error())
		}
	}
	if c.sub == nil && !c.join.ready {
		return 0, unbound, nil
	}
	seq, err = c.socket.server.moving.wait(ctx, c.socket.database)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = refusal("PostgresChangesSubscribeTimeout: capture of the database does not answer; join again")
	case err != nil:
		c.socket.server.config.Logger.WarnContext(ctx, "a join is refused: capture does not run", obs.KeyDatabase, c.socket.database, obs.KeyError, err)
		err = refusal("UnableToConnectToProject: changes of the database are not captured for now; join again")
	}
	return seq, unbound, err
}

// bind makes the subscription. All its bindings can be, or none is.
func (c *channel) bind(ctx context.Context, ids []uint32) error {
	feed, err := c.socket.server.feed(c.socket.database)
	if err != nil {
		return errors.New("the log of the database cannot be opened for now")
	}
	sub := &subscription{channel: c}
	if err := c.join.bindAll(sub, ids); err != nil {
		return err
	}
	for i, b := range sub.bindings {
		if err := b.check(ctx, feed.shapes); err != nil {
			return err
		}
		since := c.join.changes[i].since
		if len(since) == 0 {
			since = firstOf(c.join.since, c.socket.since)
		}
		after, given, err := placeOf(ctx, feed.log, since)
		if err != nil {
			return err
		}
		b.after = fromNow
		if given {
			b.after = after
		}
	}
	c.mu.Lock()
	c.feed, c.sub = feed, sub
	c.mu.Unlock()
	return nil
}

func firstOf(a, b json.RawMessage) json.RawMessage {
	if len(a) > 0 {
		return a
	}
	return b
}

// fromNow is the place of a binding without since, until capture has told where it is.
const fromNow = ^uint64(0)

// enter tells the client that it has joined, unless it has left meanwhile.
func (c *channel) enter(ref json.RawMessage, ids []uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	c.joined = true
	c.reply(ref, "ok", c.join.response(ids))
	c.member = c.socket.server.hub.enter(c)
	return true
}

// begin returns the seq that the channel begins with, by the places of its bindings and
// the one from which on capture is certain.
func (c *channel) begin(seq uint64) uint64 {
	from := seq
	for _, b := range c.sub.bindings {
		switch {
		case b.after == fromNow:
			b.after = seq
		case b.after > max(seq, c.feed.log.Last().Seq):
			// The seq is not of this log: it was made anew, or is of another database.
			first := c.feed.log.First()
			c.tellLoss(fmt.Sprintf("The sequence %d is not of this log: the first available one is %d", b.after, first), first)
			b.after = max(first, 1) - 1
		}
		from = min(from, b.after)
	}
	return from + 1
}

// refresh takes a new access token. There is no answer, unless it is refused.
func (c *channel) refresh(ctx context.Context, payload json.RawMessage) {
	var p struct {
		AccessToken *string `json:"access_token"`
	}
	if json.Unmarshal(payload, &p) != nil || p.AccessToken == nil || *p.AccessToken == "" || len(*p.AccessToken) > 3 && (*p.AccessToken)[:3] == "sb_" {
		return
	}
	c.mu.Lock()
	same := c.token == *p.AccessToken
	c.mu.Unlock()
	if same {
		return
	}
	claims, err := c.socket.server.authorize(ctx, *p.AccessToken)
	switch {
	case errors.Is(err, lockstep.ErrUnavailable) || ctx.Err() != nil:
		return // the old one holds as long as it does
	case err != nil:
		c.fail("Unauthorized: " + err.Error())
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.expires = *p.AccessToken, claims.Expires
}

// recheck ends the channel when its token allows nothing any more.
func (c *channel) recheck(ctx context.Context, now time.Time) {
	c.mu.Lock()
	token, expires, joined := c.token, c.expires, c.joined && !c.gone
	c.mu.Unlock()
	if !joined {
		return
	}
	if !expires.IsZero() && !now.Before(expires) {
		c.fail("InvalidJWTToken: the token has expired")
		return
	}
	_, err := c.socket.server.authorize(ctx, token)
	if err != nil && !errors.Is(err, lockstep.ErrUnavailable) && ctx.Err() == nil {
		c.fail("Unauthorized: " + err.Error())
	}
}
