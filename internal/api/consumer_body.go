package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"lockstep"
	"lockstep/internal/deliver"
)

// ConsumerBody defines a consumer: the keys of the configuration as JSON. What is
// left out keeps its default, or, in a change, its value.
type ConsumerBody struct {
	Name        *string      `json:"name,omitempty" doc:"Unique. Needed to make a consumer" example:"orders"`
	Kind        *string      `json:"kind,omitempty" enum:"http,webhook,postgres,nats,kafka,redis,embeddings,stdout" doc:"How its changes get there. Default: http"`
	Database    *string      `json:"database,omitempty" doc:"Default: the only one"`
	Tables      *[]string    `json:"tables,omitempty" doc:"Patterns such as public.orders, public.* or -public.audit. Default: every table"`
	Collections *[]string    `json:"collections,omitempty" doc:"Collections of syncs in the place of tables: stripe:customer, stripe:* or * for all. record is then the API's object with its data, also for filter and transform, and changes is null"`
	Sync        *string      `json:"sync,omitempty" doc:"With collections: only those of this sync, by its id or name"`
	Actions     *[]string    `json:"actions,omitempty" doc:"insert, update, delete. Default: all; read is always included"`
	Filter      *string      `json:"filter,omitempty" doc:"An expression; changes for which it is false are left out" example:"record.amount > 100"`
	Transform   *string      `json:"transform,omitempty" doc:"An expression whose result takes the place of record"`
	Start       *string      `json:"start,omitempty" doc:"now, beginning, seq:1234, a time, or 1h for an hour ago. Default: now"`
	Backfill    *bool        `json:"backfill,omitempty" doc:"Existing rows first, as action read. Default: false"`
	OrderBy     *OrderBy     `json:"order_by,omitempty"`
	AckWait     *Span        `json:"ack_wait,omitempty"`
	MaxInFlight *int         `json:"max_in_flight,omitempty" doc:"Changes handed out and not settled. Default: 1000"`
	MaxAttempts *int         `json:"max_attempts,omitempty" doc:"Default: 0, for ever"`
	OnExhausted *string      `json:"on_exhausted,omitempty" enum:"park,park_key,block" doc:"What becomes of a change after its last attempt. Default: park"`
	Backoff     *BackoffBody `json:"backoff,omitempty"`
	Batch       *BatchBody   `json:"batch,omitempty" doc:"For kinds that send; others are asked by next for as many as the caller wants"`
	Webhook     *Anything    `json:"webhook,omitempty" doc:"Settings of kind webhook: url, secret, secrets, headers, timeout, format, allow_private, method, path, gzip, concurrency and others. In a change: what is left out stays, null removes. Secrets are never shown"`
	Postgres    *Anything    `json:"postgres,omitempty" doc:"Settings of kind postgres"`
	Nats        *Anything    `json:"nats,omitempty" doc:"Settings of kind nats"`
	Kafka       *Anything    `json:"kafka,omitempty" doc:"Settings of kind kafka"`
	Redis       *Anything    `json:"redis,omitempty" doc:"Settings of kind redis"`
	Metadata    *Anything    `json:"metadata,omitempty" doc:"Yours: kept and returned"`
}

// BackoffBody says how long a refused change waits.
type BackoffBody struct {
	First  *Span    `json:"first,omitempty"`
	Max    *Span    `json:"max,omitempty"`
	Jitter *float64 `json:"jitter,omitempty" minimum:"0" maximum:"1"`
}

// BatchBody says how kinds that send put changes together.
type BatchBody struct {
	Size *int  `json:"size,omitempty" minimum:"1" maximum:"1000"`
	Wait *Span `json:"wait,omitempty"`
}

// HTTPConsumerBody also takes the members of the pull consumers of 2024.
type HTTPConsumerBody struct {
	ConsumerBody
	FilterCollection *string    `json:"filter_collection_id,omitempty" doc:"The older form of collections, for one" example:"github:pull_request"`
	Filters          *OldFilter `json:"filters,omitempty" doc:"The older form of collections and sync"`
	DeliverPolicy    *string    `json:"deliver_policy,omitempty" doc:"all, new, last, or a length of time such as 1h: the older form of start"`
	AckWaitMS        *int64     `json:"ack_wait_ms,omitempty" doc:"The older form of ack_wait"`
	MaxAckPending    *int       `json:"max_ack_pending,omitempty" doc:"The older form of max_in_flight"`
	MaxDeliver       *int       `json:"max_deliver,omitempty" doc:"The older form of max_attempts; -1: for ever"`
}

// Span is a length of time in JSON: "30s", or a number of milliseconds.
type Span struct{ text string }

// UnmarshalJSON keeps the text; it is read where its place in the body is known.
func (s *Span) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &s.text)
	}
	s.text = string(data)
	return nil
}

// MarshalJSON writes the text.
func (s Span) MarshalJSON() ([]byte, error) { return json.Marshal(s.text) }

// Schema implements huma.SchemaProvider.
func (Span) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "A length of time: a number with a unit, or milliseconds", Examples: []any{"30s"},
		OneOf: []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeInteger}}}
}

// OrderBy is the member order_by.
type OrderBy struct{ deliver.OrderBy }

// Schema implements huma.SchemaProvider.
func (OrderBy) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "key: changes of one key wait for each other. A list of columns: those with equal values do. none: no change waits",
		OneOf: []*huma.Schema{{Type: huma.TypeString, Enum: []any{"key", "none"}}, {Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}}}
}

// Anything is any JSON value.
type Anything struct{ json.RawMessage }

// Schema implements huma.SchemaProvider.
func (Anything) Schema(huma.Registry) *huma.Schema { return &huma.Schema{} }

// faults collects what is wrong with a definition.
type faults []Fault

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, Fault{Message: fmt.Sprintf(format, args...), Location: "body." + field})
}

func (f faults) problem() error {
	if len(f) == 0 {
		return nil
	}
	var all []string
	for _, one := range f {
		all = append(all, strings.TrimPrefix(one.Location, "body.")+": "+one.Message)
	}
	return problem(http.StatusUnprocessableEntity, strings.Join(all, "; "), f...)
}

// invalid turns the faults that deliver finds in a definition into a problem.
func (f faults) invalid(err error) error {
	var def *deliver.DefinitionError
	if !errors.As(err, &def) {
		return unprocessable(err)
	}
	for _, p := range def.Problems {
		f.add(p.Field, "%s", p.Message)
	}
	return f.problem()
}

func take[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}

// takeCount is take for a number from 1: a 0 that was written is no default.
func takeCount(dst, src *int, field string, f *faults) {
	if src != nil && *src < 1 {
		f.add(field, "%d is out of range: use a number from 1", *src)
		return
	}
	take(dst, src)
}

// apply writes what the body says into the definition.
func (b ConsumerBody) apply(d *deliver.Definition, f *faults) {
	take(&d.Name, b.Name)
	take(&d.Kind, b.Kind)
	take(&d.Database, b.Database)
	take(&d.Tables, b.Tables)
	take(&d.Collections, b.Collections)
	take(&d.Sync, b.Sync)
	take(&d.Filter, b.Filter)
	take(&d.Transform, b.Transform)
	take(&d.Start, b.Start)
	take(&d.Backfill, b.Backfill)
	takeCount(&d.MaxInFlight, b.MaxInFlight, "max_in_flight", f)
	take(&d.MaxAttempts, b.MaxAttempts)
	take(&d.OnExhausted, b.OnExhausted)
	if b.OrderBy != nil {
		d.OrderBy = b.OrderBy.OrderBy
	}
	if b.Metadata != nil {
		d.Metadata = nil
		if !bytes.Equal(b.Metadata.RawMessage, []byte("null")) {
			d.Metadata = slices.Clone(b.Metadata.RawMessage)
		}
	}
	if b.Name != nil && (strings.ContainsRune(d.Name, '/') || strings.ContainsFunc(d.Name, unicode.IsControl) || strings.TrimSpace(d.Name) != d.Name || !utf8.ValidString(d.Name)) {
		f.add("name", "a name stands in addresses: no slash, no control characters, no space around it")
	}
	b.AckWait.apply(&d.AckWait, "ack_wait", f)
	if b.AckWait != nil && d.AckWait == 0 {
		f.add("ack_wait", "it must be longer than 0")
	}
	b.actions(d, f)
	if b.Backoff != nil {
		b.Backoff.apply(&d.Backoff, f)
	}
	if b.Batch != nil {
		takeCount(&d.Batch.Size, b.Batch.Size, "batch.size", f)
		b.Batch.Wait.apply(&d.Batch.Wait, "batch.wait", f)
	}
}

// kindSettings returns what the body says under names of kinds.
func (b ConsumerBody) kindSettings() map[string]json.RawMessage {
	given := map[string]json.RawMessage{}
	for _, one := range []struct {
		name     string
		settings *Anything
	}{{"webhook", b.Webhook}, {"postgres", b.Postgres}, {"nats", b.Nats}, {"kafka", b.Kafka}, {"redis", b.Redis}} {
		if one.settings != nil {
			given[one.name] = one.settings.RawMessage
		}
	}
	return given
}

// show puts settings under the name of their kind.
func (b *ConsumerBody) show(kind string, settings json.RawMessage) {
	if len(settings) == 0 {
		return
	}
	shown := &Anything{settings}
	switch kind {
	case "webhook":
		b.Webhook = shown
	case "postgres":
		b.Postgres = shown
	case "nats":
		b.Nats = shown
	case "kafka":
		b.Kafka = shown
	case "redis":
		b.Redis = shown
	}
}

// apply writes what the body says; what it leaves out stays, or is the default, moved
// where it would contradict what is said.
func (b BackoffBody) apply(d *deliver.Backoff, f *faults) {
	if *d == (deliver.Backoff{}) {
		*d = deliver.DefaultBackoff()
	}
	b.First.apply(&d.First, "backoff.first", f)
	b.Max.apply(&d.Max, "backoff.max", f)
	take(&d.Jitter, b.Jitter)
	if b.First == nil {
		d.First = min(d.First, d.Max)
	}
	if b.Max == nil {
		d.Max = max(d.First, d.Max)
	}
}

func (b ConsumerBody) actions(d *deliver.Definition, f *faults) {
	if b.Actions == nil {
		return
	}
	d.Actions = nil
	for i, name := range *b.Actions {
		action, err := lockstep.ParseAction(name)
		if err != nil {
			f.add(fmt.Sprintf("actions[%d]", i), "%s", err)
			continue
		}
		if !slices.Contains(d.Actions, action) {
			d.Actions = append(d.Actions, action)
		}
	}
}

// apply writes the length of time to dst; nil leaves it alone.
func (s *Span) apply(dst *time.Duration, field string, f *faults) {
	if s == nil {
		return
	}
	d, err := parseDuration(s.text)
	if err != nil {
		f.add(field, "%s", err)
		return
	}
	*dst = d
}

// apply writes what the body says into the definition, older members included.
func (b HTTPConsumerBody) apply(d *deliver.Definition, f *faults) {
	b.ConsumerBody.apply(d, f)
	if b.Kind != nil && *b.Kind != "http" {
		f.add("kind", "an HTTP consumer is of kind http; use /v1/consumers for others")
	}
	b.collections(d, f)
	b.twice(f)
	if b.DeliverPolicy != nil {
		b.policy(d, f)
	}
	if b.AckWaitMS != nil {
		if *b.AckWaitMS < 1 || *b.AckWaitMS > deliver.MaxAckWait.Milliseconds() {
			f.add("ack_wait_ms", "%d is out of range: use milliseconds up to %d", *b.AckWaitMS, deliver.MaxAckWait.Milliseconds())
		} else {
			d.AckWait = time.Duration(*b.AckWaitMS) * time.Millisecond
		}
	}
	takeCount(&d.MaxInFlight, b.MaxAckPending, "max_ack_pending", f)
	if b.MaxDeliver == nil {
		return
	}
	switch n := *b.MaxDeliver; {
	case n == -1:
		d.MaxAttempts = 0
	case n > 0:
		d.MaxAttempts = n
	default:
		f.add("max_deliver", "%d is out of range: use a number from 1, or -1 for ever", n)
	}
}

// twice refuses bodies that say one thing in both forms.
func (b HTTPConsumerBody) twice(f *faults) {
	for _, pair := range []struct {
		older, newer string
		both         bool
	}{
		{"deliver_policy", "start", b.DeliverPolicy != nil && b.Start != nil},
		{"ack_wait_ms", "ack_wait", b.AckWaitMS != nil && b.AckWait != nil},
		{"max_ack_pending", "max_in_flight", b.MaxAckPending != nil && b.MaxInFlight != nil},
		{"max_deliver", "max_attempts", b.MaxDeliver != nil && b.MaxAttempts != nil},
	} {
		if pair.both {
			f.add(pair.older, "it means the same as %s: give one of them", pair.newer)
		}
	}
}

func (b HTTPConsumerBody) policy(d *deliver.Definition, f *faults) {
	switch text := *b.DeliverPolicy; text {
	case "all":
		d.Start = "beginning"
	case "new":
		d.Start = "now"
	case "last":
		d.Start = startLast
	default:
		if _, err := time.ParseDuration(text); err != nil {
			f.add("deliver_policy", "%q is unknown: use all, new, last or a length of time such as 1h", text)
			return
		}
		d.Start = text
	}
}

// startLast stands for the newest change until the consumer's log is known.
const startLast = "last"

// resolveLast puts the newest change's seq in the place of startLast.
func resolveLast(d *deliver.Definition, log Log) {
	if d.Start != startLast {
		return
	}
	d.Start = "now"
	if seq := log.Last().Seq; seq > 0 {
		d.Start = "seq:" + strconv.FormatUint(seq, 10)
	}
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
