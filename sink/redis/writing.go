package redis

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"lockstep"
	"lockstep/sink"
)

// guarded is the script around changes. KEYS: for each what is written, and the seq of
// the last change of its key. ARGV: how long seqs are kept in ms, and for each the seq,
// the one before it in the same call ("" when there is none), how many arguments
// follow, and the command without its key. It returns for each 1 when it wrote, 0 when
// the change or a newer one was there already, or the text of an error.
//
// Seqs are compared as texts: Lua's numbers are exact below 2^53 only.
const guarded = `
local function less(a, b) return #a < #b or (#a == #b and a < b) end
local places, last, results = {}, {}, {}
for i = 2, #KEYS, 2 do places[i / 2] = KEYS[i] end
for i, seq in ipairs(redis.call('MGET', unpack(places))) do last[places[i]] = seq end
local at = 2
for i, place in ipairs(places) do
	local seq, before, n, known = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), last[place]
	if before ~= '' and (not known or less(known, before)) then
		results[i] = 'HELD '
	elseif known and not less(known, seq) then
		results[i] = 0
	else
		local out = redis.pcall(ARGV[at + 3], KEYS[2 * i - 1], unpack(ARGV, at + 4, at + 2 + n))
		if type(out) == 'table' and out.err then
			results[i] = out.err
		else
			redis.call('SET', place, seq, 'PX', ARGV[1])
			last[place] = seq
			results[i] = 1
		end
	end
	at = at + 3 + n
end
return results`

// writing is one call of Write.
type writing struct {
	r        *Redis
	script   *goredis.Script
	messages []sink.Message
	errs     []error
	settled  []bool
	before   []int // the message before of the same key; -1: none
	texts    []texts
	stopped  error
}

// texts are what a command says of a message besides its own fields.
type texts struct{ action, at string }

// blob is a field of a message as an argument: the client takes a pointer without
// allocating anything, and reads it before the call ends.
type blob []byte

// MarshalBinary implements what the client asks for.
func (b *blob) MarshalBinary() ([]byte, error) { return *b, nil }

func newWriting(r *Redis, messages []sink.Message) *writing {
	w := &writing{
		r: r, script: goredis.NewScript(guarded), messages: messages, errs: make([]error, len(messages)),
		settled: make([]bool, len(messages)), before: make([]int, len(messages)), texts: make([]texts, len(messages)),
	}
	last := make(map[uint64]int, len(messages))
	for i := range messages {
		w.before[i] = -1
		if at, ok := last[messages[i].Key]; ok {
			w.before[i] = at
		}
		last[messages[i].Key] = i
	}
	return w
}

// command is what the script is to do for one message.
type command struct {
	index int
	keys  [2]string
	args  []any // seq, seq before, and the command without its key
}

// group is one call of the script. What a cluster keeps in one slot goes together.
type group struct {
	commands []command
	bytes    int
}

// One call holds the server up while it runs.
const (
	groupSize  = 64
	groupBytes = 1 << 20
)

// run sends all commands, and once more with the script those for which the server did
// not know it.
func (w *writing) run(ctx context.Context, l *line) {
	if w.r.config.Guard == GuardNone {
		w.plain(ctx, l)
		return
	}
	var list []*group
	open := map[string]*group{}
	for i := range w.messages {
		c, ok, err := w.command(i)
		if !w.effective(i, ok, err) {
			continue
		}
		slot := ""
		if w.r.config.Cluster {
			slot = tag(c.keys[0])
		}
		g := open[slot]
		if g == nil || len(g.commands) == groupSize || g.bytes > groupBytes {
			g = &group{}
			open[slot] = g
			list = append(list, g)
		}
		g.commands = append(g.commands, c)
		g.bytes += len(w.messages[i].Body)
	}
	list = w.send(ctx, l, list, w.script.EvalSha)
	list = w.send(ctx, l, list, w.script.Eval)
	if len(list) > 0 {
		w.stopped = w.r.refusal(sink.Retry, "it forgets scripts", nil)
	}
}

// effective notes what became of a message without a command.
func (w *writing) effective(i int, ok bool, err error) bool {
	switch {
	case err != nil:
		w.errs[i], w.settled[i] = err, true
	case !ok:
		w.settled[i] = true
		w.r.ignored.Add(1)
	default:
		return true
	}
	return false
}

// plain sends commands without the script: of each key one at a time.
func (w *writing) plain(ctx context.Context, l *line) {
	for left := len(w.messages); left > 0; {
		p := l.client.Pipeline()
		var sent []int
		var results []*goredis.Cmd
		for i := range w.messages {
			// What is sent in this round is settled behind it.
			if b := w.before[i]; w.settled[i] || b >= 0 && !w.settled[b] {
				continue
			}
			left--
			target, ok, err := w.target(i)
			if w.effective(i, ok, err) {
				sent, results = append(sent, i), append(results, p.Do(ctx, w.words(make([]any, 0, 24), i, target)...))
			}
		}
		_, whole := p.Exec(ctx)
		for n, i := range sent {
			err := results[n].Err()
			if w.settled[i] = true; err == nil && results[n].Val() == nil {
				err = cmp.Or(whole, errUnsent)
			}
			if err != nil {
				w.errs[i] = w.judge(ctx, err)
				continue
			}
			w.r.written.Add(1)
		}
	}
}

var errUnsent = errors.New("the command was not sent")

// send calls the script for groups in one pipeline, and returns those for which the
// server does not know it.
func (w *writing) send(ctx context.Context, l *line, list []*group, how func(context.Context, goredis.Scripter, []string, ...any) *goredis.Cmd) (unknown []*group) {
	if len(list) == 0 {
		return nil
	}
	p := l.client.Pipeline()
	results := make([]*goredis.Cmd, len(list))
	for n, g := range list {
		keys := make([]string, 0, 2*len(g.commands))
		args := []any{strconv.FormatInt(w.r.config.Window.Milliseconds(), 10)}
		for _, c := range g.commands {
			keys = append(keys, c.keys[0], c.keys[1])
			args = append(args, c.args[0], c.args[1], strconv.Itoa(len(c.args)-2))
			args = append(args, c.args[2:]...)
		}
		results[n] = how(ctx, p, keys, args...)
	}
	_, whole := p.Exec(ctx)
	for n, g := range list {
		answers, err := results[n].Slice()
		if results[n].Err() == nil && err != nil {
			err = cmp.Or(whole, err) // it was not sent at all
		}
		if goredis.HasErrorPrefix(err, "NOSCRIPT") {
			unknown = append(unknown, g)
			continue
		}
		w.settle(ctx, g, answers, err)
	}
	return unknown
}

// settle notes what the script said about each message of a group.
func (w *writing) settle(ctx context.Context, g *group, answers []any, err error) {
	for n, c := range g.commands {
		w.settled[c.index] = true
		if err != nil || n >= len(answers) {
			w.errs[c.index] = w.judge(ctx, err)
			continue
		}
		switch answer := answers[n].(type) {
		case int64:
			w.r.written.Add(uint64(answer))
			w.r.stale.Add(uint64(1 - answer))
		case string:
			w.errs[c.index] = w.meaning(answer)
		default:
			w.errs[c.index] = w.meaning("")
		}
	}
}

// command makes the command of a message; false: it has no effect.
func (w *writing) command(i int) (c command, ok bool, err error) {
	target, ok, err := w.target(i)
	if !ok || err != nil {
		return c, false, err
	}
	m := &w.messages[i]
	c = command{index: i, args: append(make([]any, 0, 26), strconv.FormatUint(m.Seq, 10), w.previous(i, target))}
	if w.r.config.Mode == Stream {
		c.keys = [2]string{target, position(target, strconv.FormatUint(m.Key, 36))}
		if late(m) {
			// Later ones of its key went by: it is compared with itself only.
			c.keys[1], c.args[1] = position(target, "late:"+m.IdempotencyKey), ""
		}
	} else {
		c.keys = [2]string{target, position(target, "")}
	}
	c.args = w.words(c.args, i)
	return c, true, nil
}

// target returns the key that a message is written to; false: it has no effect.
func (w *writing) target(i int) (target string, ok bool, err error) {
	m := &w.messages[i]
	if m.Action.Whole() && w.r.config.Mode == String {
		return "", false, nil
	}
	if b := w.before[i]; b >= 0 && w.errs[b] != nil {
		return "", false, w.held()
	}
	target, err = w.r.target(m, partsOf(m.PKs))
	return target, err == nil, err
}

// position is the key of a seq, which a cluster keeps where the data is.
func position(target, of string) string {
	if of == "" {
		return "lockstep:seq:{" + tag(target) + "}:" + target
	}
	return "lockstep:seq:{" + tag(target) + "}:" + target + ":" + of
}

// previous is the seq that must be there before: of the message before, when it goes to
// the same place.
func (w *writing) previous(i int, target string) string {
	b := w.before[i]
	for b >= 0 && late(&w.messages[b]) {
		b = w.before[b]
	}
	if b < 0 {
		return ""
	}
	m := &w.messages[b]
	if at, err := w.r.target(m, partsOf(m.PKs)); err != nil || at != target {
		return ""
	}
	return strconv.FormatUint(m.Seq, 10)
}

// words appends the command of a message, with those keys.
func (w *writing) words(args []any, i int, keys ...any) []any {
	if w.r.config.Mode == Stream {
		return w.entry(args, i, keys)
	}
	m := &w.messages[i]
	if m.Action == lockstep.Delete {
		return append(append(args, "DEL"), keys...)
	}
	value := (*blob)(&m.Record)
	if w.r.config.Value == Message {
		value = (*blob)(&m.Body)
	}
	args = append(append(append(args, "SET"), keys...), value)
	if w.r.config.TTL > 0 {
		args = append(args, "PX", strconv.FormatInt(max(w.r.config.TTL.Milliseconds(), int64(1)), 10))
	}
	return args
}

// entry appends XADD.
func (w *writing) entry(args []any, i int, keys []any) []any {
	m, t := &w.messages[i], &w.texts[i]
	if t.action = m.Action.String(); i > 0 && w.messages[i-1].CommitTime.Equal(m.CommitTime) {
		t.at = w.texts[i-1].at
	}
	if t.at == "" {
		t.at = m.CommitTime.UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	args = append(append(args, "XADD"), keys...)
	if w.r.config.MaxLen > 0 {
		args = append(args, "MAXLEN", "~", strconv.FormatInt(w.r.config.MaxLen, 10))
	}
	return append(args, "*",
		"id", &m.IdempotencyKey, "seq", &m.Seq, "database", &m.Database, "schema", &m.Schema, "table", &m.Table,
		"action", &t.action, "pks", (*blob)(&m.PKs), "at", &t.at, "message", (*blob)(&m.Body))
}

// late reports whether a message comes out of the dead letters after later ones.
func late(m *sink.Message) bool {
	if !bytes.Contains(m.Body, []byte(`"late":true`)) {
		return false
	}
	var body struct {
		Metadata struct {
			Late bool `json:"late"`
		} `json:"metadata"`
	}
	return json.Unmarshal(m.Body, &body) == nil && body.Metadata.Late
}

// partsOf decodes a key.
func partsOf(pks json.RawMessage) []string {
	if n := len(pks); n > 4 && bytes.HasPrefix(pks, []byte(`["`)) && bytes.HasSuffix(pks, []byte(`"]`)) && bytes.IndexByte(pks[2:n-2], '"') < 0 && bytes.IndexByte(pks, '\\') < 0 {
		return []string{string(pks[2 : n-2])}
	}
	var list []string
	_ = json.Unmarshal(pks, &list) // what is no list has no parts
	return list
}

func (w *writing) held() error {
	return w.r.refusal(sink.Retry, "an earlier change of its key was not delivered", nil)
}

// judge says what an error means. README.md has the table.
func (w *writing) judge(ctx context.Context, err error) error {
	var of goredis.Error
	if !errors.As(err, &of) {
		if ctx.Err() != nil {
			return w.r.refusal(sink.Retry, "interrupted", context.Cause(ctx))
		}
		return w.r.refusal(sink.Retry, "it cannot be reached, or does not answer within "+w.r.config.Timeout.String(), nil)
	}
	return w.meaning(of.Error())
}

// meaning says what an error of Redis means.
func (w *writing) meaning(text string) error {
	// Errors of commands within a script may stand behind a word of the script's own.
	for _, one := range meanings() {
		if strings.HasPrefix(text, one.prefix) || strings.Contains(text, one.prefix+" ") {
			if one.prefix == heldBack {
				return w.held()
			}
			return w.r.refusal(one.kind, one.means+" ("+one.prefix+")", nil)
		}
	}
	return w.r.refusal(sink.Retry, "it refuses the command now", nil)
}

const heldBack = "HELD"

type meaning struct {
	prefix string
	kind   sink.Kind
	means  string
}

func meanings() []meaning {
	return []meaning{
		{heldBack, sink.Retry, ""},
		{"OOM", sink.Retry, "its memory is full: raise maxmemory, or set maxlen"},
		{"NOAUTH", sink.Refused, "it does not let us in: check user and password"},
		{"WRONGPASS", sink.Refused, "it does not let us in: check user and password"},
		{"NOPERM", sink.Refused, "the user lacks a permission: EVALSHA, EVAL, GET, SET, DEL and XADD on the keys"},
		{"WRONGTYPE", sink.Refused, "the key holds something else than a stream"},
		{"CROSSSLOT", sink.Refused, "the key is in another slot than its seq"},
		{"READONLY", sink.Retry, "it is a replica: a failover is under way"},
		{"LOADING", sink.Retry, "it is starting"},
		{"CLUSTERDOWN", sink.Retry, "the cluster is down"},
		{"MASTERDOWN", sink.Retry, "its master is away"},
		{"MISCONF", sink.Retry, "it cannot save"},
		{"NOREPLICAS", sink.Retry, "too few replicas are there"},
		{"TRYAGAIN", sink.Retry, "a slot is moving"},
		{"BUSY", sink.Retry, "a script blocks it"},
	}
}

// result is what Write returns.
func (w *writing) result() (int, error) {
	first := len(w.messages)
	partial := &sink.PartialError{}
	for i := range w.messages {
		err := w.errs[i]
		if !w.settled[i] {
			err = w.stopped
		}
		if err != nil {
			first = min(first, i)
			partial.Failed = append(partial.Failed, sink.Failure{Index: i, Err: err})
		}
	}
	if first == len(w.messages) {
		return first, nil
	}
	return first, partial
}
