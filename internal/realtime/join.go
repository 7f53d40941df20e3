package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/realtime/match"
)

// refusal is an error of which the client is told the text: it is the protocol's, which
// has capitals and full stops.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

// join is what a client asks for when it joins a topic.
type join struct {
	ack, self bool // of broadcasts
	ready     bool // it wants to be told that capture runs
	presence  bool
	key       string // of presence
	private   bool
	wait      bool // it wants a bad filter to refuse the join
	token     string
	since     json.RawMessage
	changes   []wanted
}

// wanted is one postgres_changes entry as the client sent it.
type wanted struct {
	raw                          json.RawMessage
	event, schema, table, filter *string
	columns                      []string
	since                        json.RawMessage
	bad                          string // why it cannot be; empty: it may be
}

// flexible is a boolean that clients write in several ways.
type flexible bool

// UnmarshalJSON implements json.Unmarshaler.
func (f *flexible) UnmarshalJSON(b []byte) error {
	*f = string(b) == "true" || string(b) == `"true"` || string(b) == "1"
	return nil
}

// parseJoin reads the payload of a join. What it does not understand is left out, as
// the real server does; entries of postgres_changes say what is wrong with them.
func parseJoin(payload json.RawMessage) (join, error) {
	var p struct {
		AccessToken string `json:"access_token"`
		UserToken   string `json:"user_token"`
		Config      struct {
			Broadcast struct {
				Self  flexible        `json:"self"`
				Ack   flexible        `json:"ack"`
				Ready flexible        `json:"replication_ready"`
				Since json.RawMessage `json:"since"`
			} `json:"broadcast"`
			Presence struct {
				Key     json.RawMessage `json:"key"`
				Enabled *flexible       `json:"enabled"`
			} `json:"presence"`
			Private flexible          `json:"private"`
			Changes []json.RawMessage `json:"postgres_changes"`
			Options struct {
				Wait flexible `json:"wait"`
			} `json:"postgres_changes_options"`
		} `json:"config"`
	}
	if len(payload) > 0 && json.Unmarshal(payload, &p) != nil {
		return join{}, refusal("InvalidJoinPayload: the payload of a join is {\"config\":{\"broadcast\",\"presence\",\"postgres_changes\",\"private\"},\"access_token\"}")
	}
	c := p.Config
	j := join{
		ack: bool(c.Broadcast.Ack), self: bool(c.Broadcast.Self), ready: bool(c.Broadcast.Ready), since: c.Broadcast.Since,
		private: bool(c.Private), wait: bool(c.Options.Wait), token: p.AccessToken,
		// Clients that do not know the switch expect presence.
		presence: c.Presence.Enabled == nil || bool(*c.Presence.Enabled),
	}
	if p.UserToken != "" {
		j.token = p.UserToken
	}
	if json.Unmarshal(c.Presence.Key, &j.key) != nil && isRef(c.Presence.Key) {
		j.key = strings.Trim(string(c.Presence.Key), `"`)
	}
	if len(j.key) > maxName {
		return join{}, errPresenceKey
	}
	if len(c.Changes) > maxBindings {
		return join{}, refusal(fmt.Sprintf("InvalidJoinPayload: a channel has at most %d entries of postgres_changes", maxBindings))
	}
	for _, raw := range c.Changes {
		if string(raw) != "null" {
			j.changes = append(j.changes, parseWanted(raw))
		}
	}
	return j, nil
}

// maxBindings bounds the entries of postgres_changes of a channel.
const maxBindings = 100

func parseWanted(raw json.RawMessage) wanted {
	w := wanted{raw: raw}
	var p struct {
		Event, Schema, Table, Filter *string
		Select                       json.RawMessage
		Since                        json.RawMessage
	}
	if json.Unmarshal(raw, &p) != nil {
		w.bad = "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: event, schema, table and filter are texts"
		return w
	}
	w.event, w.schema, w.table, w.filter, w.since = p.Event, p.Schema, p.Table, p.Filter, p.Since
	if len(p.Select) > 0 && string(p.Select) != "null" && json.Unmarshal(p.Select, &w.columns) != nil {
		w.bad = "Error parsing `select` params: expected a list of column name strings, e.g. select: [\"col1\", \"col2\"]"
	}
	return w
}

// bind makes the binding, without its id and its place.
func (w wanted) bind() (*binding, error) {
	switch {
	case w.bad != "":
		return nil, errors.New(w.bad)
	case w.schema == nil && w.table == nil, w.table == nil && w.filter != nil && strings.TrimSpace(*w.filter) != "":
		return nil, refusal("No subscription params provided. Please provide at least a `schema` or `table` to subscribe to, and a `table` for a `filter`")
	}
	b := &binding{schema: "public", table: anyName}
	if w.schema != nil {
		b.schema = *w.schema
	}
	if w.table != nil {
		b.table = *w.table
	}
	event := ""
	if w.event != nil {
		event = strings.ToLower(*w.event)
	}
	action, err := lockstep.ParseAction(event)
	if err != nil || action > lockstep.Delete {
		b.events[lockstep.Insert], b.events[lockstep.Update], b.events[lockstep.Delete] = true, true, true
	} else {
		b.events[action] = true
	}
	if len(w.columns) > 0 {
		if b.schema == anyName || b.table == anyName {
			return nil, refusal("Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.")
		}
		b.selected = slices.Compact(slices.Sorted(slices.Values(w.columns)))
	}
	if w.filter != nil {
		if b.conditions, err = match.Parse(*w.filter); err != nil {
			return nil, refusal(fmt.Sprintf("Error parsing `filter` params: %v", err))
		}
	}
	return b, nil
}

// echo appends the entry as the reply shows it: as it was sent, with its id.
func (w wanted) echo(dst []byte, id uint32) []byte {
	dst = strconv.AppendUint(append(dst, `{"id":`...), uint64(id), 10)
	var row match.Row
	row.Reset(w.raw)
	for _, m := range row.Members() {
		if string(m.Name) == "id" {
			continue
		}
		dst = lockstep.AppendJSONString(append(dst, ','), m.Name)
		dst = append(append(dst, ':'), m.Value...)
	}
	return append(dst, '}')
}

// ids gives the entries their ids: the same entry has the same one after a rejoin.
func (j join) ids() []uint32 {
	var ids []uint32
	for _, w := range j.changes {
		h := fnv.New32a()
		_, _ = h.Write(w.raw)
		id := max(1, h.Sum32()&(1<<27-1))
		for slices.Contains(ids, id) {
			id++
		}
		ids = append(ids, id)
	}
	return ids
}

// response is the reply to the join.
func (j join) response(ids []uint32) string {
	dst := []byte(`{"postgres_changes":[`)
	for i, w := range j.changes {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = w.echo(dst, ids[i])
	}
	return string(append(dst, "]}"...))
}

// bindAll makes the channel's bindings. An error's text is told to the client.
func (j join) bindAll(sub *subscription, ids []uint32) error {
	for i, w := range j.changes {
		b, err := w.bind()
		if err != nil {
			return err
		}
		b.sub, b.id, b.order = sub, ids[i], i
		sub.bindings = append(sub.bindings, b)
	}
	return nil
}

// check looks whether the tables and columns that the bindings name are there, and can
// be filtered so.
func (b *binding) check(ctx context.Context, shapes *shapes) error {
	if b.schema == anyName || b.table == anyName {
		for _, c := range b.conditions {
			if _, err := c.Compile(""); err != nil {
				return err
			}
		}
		return nil
	}
	s := shapes.get(ctx, tableName{b.schema, b.table}, shapeRead)
	if s.gone {
		return refusal("Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: " +
			"there is no table " + b.schema + "." + b.table + " that is captured")
	}
	for _, c := range b.conditions {
		typname, ok := s.types[c.Column]
		if s.known && !ok {
			return fmt.Errorf("invalid column for filter %s", c.Column)
		}
		if _, err := c.Compile(typname); err != nil {
			return err
		}
	}
	for _, column := range b.selected {
		if _, ok := s.types[column]; s.known && !ok {
			return fmt.Errorf("invalid column for select %s", column)
		}
	}
	return nil
}

// placeOf reads a since: the last seq that was seen, or a time.
func placeOf(ctx context.Context, log Log, since json.RawMessage) (after uint64, given bool, err error) {
	text := strings.Trim(string(since), `"`)
	if text == "" || text == "null" {
		return 0, false, nil
	}
	if seq, err := strconv.ParseUint(text, 10, 63); err == nil {
		return seq, true, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, false, fmt.Errorf("since is the sequence of the last change that was seen, or a time such as 2026-11-21T10:00:00Z; not %.40q", text)
	}
	seq, err := log.SeqAt(ctx, at)
	if err != nil {
		return 0, false, errors.New("since: the log cannot be read for now")
	}
	return max(seq, 1) - 1, true, nil
}
