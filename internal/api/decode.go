package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// The limits of next, as the contract has them.
const (
	maxBatchSize = 1000
	maxWait      = 5 * time.Minute
)

// decodeJSON reads one JSON value into v: unknown members, anything behind the value
// and values of a wrong type are problems with the place in them.
func decodeJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jsonProblem(data, d.InputOffset(), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return jsonProblem(data, d.InputOffset(), errTrailing)
	}
	return nil
}

var errTrailing = errors.New("there is more behind the end of the JSON value; is there one closing bracket too many?")

// jsonProblem says where the JSON went wrong.
func jsonProblem(data []byte, offset int64, err error) *Problem {
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	location := "body"
	message := strings.TrimPrefix(err.Error(), "json: ")
	switch {
	case errors.As(err, &typed):
		offset = typed.Offset
		if typed.Field != "" {
			location += "." + typed.Field
		}
		message = fmt.Sprintf("expected %s, got %s", jsonType(typed.Type), typed.Value)
	case errors.As(err, &syntax):
		offset = syntax.Offset
		message = "malformed JSON: " + message
		if strings.Contains(message, "after top-level value") {
			message = "malformed JSON: " + errTrailing.Error()
		}
	case strings.HasPrefix(message, "unknown field "):
		location += "." + strings.Trim(strings.TrimPrefix(message, "unknown field "), `"`)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		offset = int64(len(data))
		message = "malformed JSON: it ends too early"
	}
	line, column := position(data, offset)
	return bad(location, "%s (line %d, column %d)", message, line, column)
}

// jsonType names a Go type in the words of JSON.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

func position(data []byte, offset int64) (line, column int) {
	before := data[:min(max(offset, 0), int64(len(data)))]
	line = 1 + bytes.Count(before, []byte("\n"))
	return line, len(before) - (bytes.LastIndexByte(before, '\n') + 1)
}

// body reads a request's body; the size is limited where the route is registered.
func body(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.ContentLength == 0 {
		return nil, nil
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		return nil, problem(http.StatusBadRequest, "the body could not be read to its end")
	}
	return data, nil
}

// duration is a JSON value that tells a length of time: a text with a unit ("30s",
// "1500ms"), or a number of milliseconds as number or text.
type duration struct {
	d   time.Duration
	set bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (d *duration) UnmarshalJSON(data []byte) error {
	text := string(data)
	if text == "null" {
		return nil
	}
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	parsed, err := parseDuration(text)
	if err != nil {
		return err
	}
	*d = duration{d: parsed, set: true}
	return nil
}

// parseDuration reads milliseconds, or a number with a unit. It is never negative.
func parseDuration(text string) (time.Duration, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		if ms < 0 || ms > math.MaxInt64/int64(time.Millisecond) {
			return 0, fmt.Errorf("%q is not a length of time", text)
		}
		return time.Duration(ms) * time.Millisecond, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a length of time: use milliseconds or a number with a unit, such as 500ms, 30s or 5m", text)
	}
	return d, nil
}

// nextRequest is what next takes, by query or as JSON.
type nextRequest struct {
	Batch int
	Wait  time.Duration
}

// decodeNext reads the parameters of next. Those in the body win.
func decodeNext(r *http.Request) (nextRequest, error) {
	out := nextRequest{Batch: 1}
	query := r.URL.Query()
	if text := query.Get("batch_size"); query.Has("batch_size") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return out, bad("query.batch_size", "batch_size must be a whole number from 1 to %d", maxBatchSize)
		}
		out.Batch = n
	}
	if query.Has("wait_for") {
		d, err := parseDuration(query.Get("wait_for"))
		if err != nil {
			return out, bad("query.wait_for", "wait_for: %s", err)
		}
		out.Wait = d
	}
	in := "query"
	if r.Method == http.MethodPost {
		fromBody, err := decodeNextBody(r, &out)
		if err != nil {
			return out, err
		}
		if fromBody {
			in = "body"
		}
	}
	if out.Batch < 1 || out.Batch > maxBatchSize {
		return out, bad(in+".batch_size", "batch_size must be a whole number from 1 to %d", maxBatchSize)
	}
	if out.Wait > maxWait {
		return out, bad(in+".wait_for", "wait_for may be at most %s", maxWait)
	}
	return out, nil
}

func decodeNextBody(r *http.Request, out *nextRequest) (present bool, err error) {
	data, err := body(r)
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return false, err
	}
	var in struct {
		Batch *int     `json:"batch_size"`
		Wait  duration `json:"wait_for"`
	}
	if err := decodeJSON(data, &in); err != nil {
		return true, err
	}
	if in.Batch != nil {
		out.Batch = *in.Batch
	}
	if in.Wait.set {
		out.Wait = in.Wait.d
	}
	return true, nil
}

// settleRequest is what ack, nack and extend take.
type settleRequest struct {
	Tokens  []string `json:"ack_tokens"`
	Delay   duration `json:"delay"`
	Reason  string   `json:"reason"`
	Release bool     `json:"release"`
	By      duration `json:"by"`
}

// verb is one of the calls that settle deliveries.
type verb string

const (
	verbAck    verb = "ack"
	verbNack   verb = "nack"
	verbExtend verb = "extend"
)

// decodeSettle reads and checks the body of ack, nack or extend.
func decodeSettle(v verb, data []byte) (settleRequest, error) {
	var in settleRequest
	var err error
	switch v { // each call knows its own members only
	case verbAck:
		var a struct {
			Tokens []string `json:"ack_tokens"`
		}
		err = decodeJSON(data, &a)
		in.Tokens = a.Tokens
	case verbExtend:
		var e struct {
			Tokens []string `json:"ack_tokens"`
			By     duration `json:"by"`
		}
		err = decodeJSON(data, &e)
		in.Tokens, in.By = e.Tokens, e.By
	case verbNack:
		var n struct {
			Tokens  []string `json:"ack_tokens"`
			Delay   duration `json:"delay"`
			Reason  string   `json:"reason"`
			Release bool     `json:"release"`
		}
		err = decodeJSON(data, &n)
		in = settleRequest{Tokens: n.Tokens, Delay: n.Delay, Reason: n.Reason, Release: n.Release}
	}
	if err != nil {
		return in, err
	}
	return in, in.check(v)
}

func (in settleRequest) check(v verb) error {
	if len(in.Tokens) == 0 {
		return bad("body.ack_tokens", "ack_tokens must be a list of at least one token")
	}
	for i, t := range in.Tokens {
		if t == "" {
			return bad(fmt.Sprintf("body.ack_tokens[%d]", i), "the token is empty")
		}
	}
	if v == verbExtend && in.By.d <= 0 {
		return bad("body.by", "by must say how much longer, for example \"60s\"")
	}
	return nil
}

// readJSON is how huma reads bodies: with the place of what is malformed.
func readJSON(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return errors.New(jsonProblem(data, syntax.Offset, err).Detail)
	}
	return err
}

// writeJSON is how huma writes answers: without escapes that only HTML needs.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
