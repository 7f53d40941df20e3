package kinds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/filter"
	"lockstep/internal/pump"
	"lockstep/sink"
	"lockstep/sink/webhook"
)

// webhookSettings are the keys of webhook.
type webhookSettings struct {
	URL          text            `json:"url" secret:"url"`
	Secret       text            `json:"secret" secret:"yes"`
	Secrets      []signingSecret `json:"secrets" secret:"yes"`
	Headers      map[string]text `json:"headers" secret:"yes"`
	Timeout      span            `json:"timeout"`
	Format       text            `json:"format"`
	AllowPrivate truth           `json:"allow_private"`
	Method       text            `json:"method"` // a word, or an expression
	Path         text            `json:"path"`   // an expression, appended to the URL
	AddHeaders   text            `json:"add_headers"`
	EventType    text            `json:"event_type"` // an expression: the CloudEvents type
	Source       text            `json:"source"`
	Gzip         truth           `json:"gzip"`
	Concurrency  count           `json:"concurrency"`
	Handshake    truth           `json:"handshake"`
	Origin       text            `json:"origin"`
	RequestRate  count           `json:"request_rate"`
}

// signingSecret is a secret, or one with its end.
type signingSecret struct {
	Key   string    `json:"key"`
	Until time.Time `json:"until"`
}

// UnmarshalJSON implements [json.Unmarshaler].
func (s *signingSecret) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &s.Key) == nil {
		return nil
	}
	type form signingSecret
	if json.Unmarshal(data, (*form)(s)) != nil || s.Key == "" {
		return errors.New(`expected whsec_… or {"key": "whsec_…", "until": "2026-11-01T00:00:00Z"}`)
	}
	return nil
}

// maxConcurrency bounds the connections to one endpoint.
const maxConcurrency = 256

func openWebhook(_ Target, settings any) (pump.Opened, error) {
	s := settings.(*webhookSettings)
	if s.URL == "" {
		return pump.Opened{}, wrong("url", "say where changes are sent: https://host/path")
	}
	if s.Concurrency > maxConcurrency {
		return pump.Opened{}, wrong("concurrency", "%d is out of range: use 1 to %d", s.Concurrency, maxConcurrency)
	}
	c := webhook.Config{
		URL: string(s.URL), Timeout: time.Duration(s.Timeout), Format: webhook.Format(s.Format), Source: string(s.Source),
		Handshake: bool(s.Handshake), Origin: string(s.Origin), RequestRate: int(s.RequestRate),
		AllowPrivate: bool(s.AllowPrivate), Gzip: bool(s.Gzip), Kept: 2 << 10, Attempt: noteAttempt,
	}
	if s.Secret != "" {
		c.Secrets = append(c.Secrets, webhook.Secret{Key: string(s.Secret)})
	}
	for _, one := range s.Secrets {
		c.Secrets = append(c.Secrets, webhook.Secret{Key: one.Key, Until: one.Until})
	}
	if len(s.Headers) > 0 {
		c.Headers = map[string]string{}
		for name, value := range s.Headers {
			c.Headers[name] = string(value)
		}
	}
	if err := s.byExpression(&c); err != nil {
		return pump.Opened{}, err
	}
	w, err := webhook.New(c)
	if err != nil {
		return pump.Opened{}, err
	}
	return pump.Opened{Sink: tested{w}, Concurrency: int(s.Concurrency)}, nil
}

// byExpression sets what depends on the change.
func (s *webhookSettings) byExpression(c *webhook.Config) error {
	method := strings.ToUpper(string(s.Method))
	if slices.Contains([]string{"", "POST", "PUT", "PATCH", "DELETE"}, method) {
		c.Method = method
	} else if err := setText("method", s.Method, &c.MethodFor); err != nil {
		return err
	}
	if err := setText("path", s.Path, &c.PathFor); err != nil {
		return err
	}
	if err := setText("event_type", s.EventType, &c.TypeFor); err != nil {
		return err
	}
	if s.AddHeaders == "" {
		return nil
	}
	eval, err := expression("add_headers", string(s.AddHeaders))
	if err != nil {
		return err
	}
	c.HeadersFor = func(m sink.Message) (map[string]string, error) {
		raw, err := eval(m)
		if err != nil {
			return nil, err
		}
		var values map[string]text
		if json.Unmarshal(raw, &values) != nil {
			return nil, errors.New("add_headers: its result is no object of texts")
		}
		headers := make(map[string]string, len(values))
		for name, value := range values {
			headers[name] = string(value)
		}
		return headers, nil
	}
	return nil
}

// setText compiles an expression whose result is a text.
func setText(field string, source text, dst *func(sink.Message) (string, error)) error {
	if source == "" {
		return nil
	}
	eval, err := expression(field, string(source))
	if err != nil {
		return err
	}
	*dst = func(m sink.Message) (string, error) {
		raw, err := eval(m)
		if err != nil {
			return "", err
		}
		if len(raw) > 0 && (raw[0] == '{' || raw[0] == '[' || string(raw) == "null") {
			return "", fmt.Errorf("%s: its result is no text", field)
		}
		return plain(raw), nil
	}
	return nil
}

// expression compiles an expression over a message.
func expression(field, source string) (func(sink.Message) ([]byte, error), error) {
	p, err := filter.Compile(filter.Transform, source)
	if err != nil {
		return nil, &fieldError{field: field, err: err}
	}
	return func(m sink.Message) ([]byte, error) {
		out, err := p.Apply(filter.NewMessage(m.Body))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return out, nil
	}, nil
}

func wrong(field, format string, args ...any) error {
	return &fieldError{field: field, err: fmt.Errorf(format+": %w", append(args, lockstep.ErrInvalid)...)}
}

// noteAttempt tells the pump of a request.
func noteAttempt(ctx context.Context, a webhook.Attempt) {
	r := pump.Request{
		At: a.At, Duration: a.Duration, Method: a.Method, URL: a.URL, Status: a.Status, Seqs: a.Seqs,
		Sent: string(a.RequestBody), Answer: string(a.AnswerBody),
	}
	if a.Err != nil {
		r.Error = a.Err.Error()
	}
	pump.Note(ctx, r)
}

// tested gives the pump the webhook's test in its own words.
type tested struct{ *webhook.Webhook }

// Test implements [pump.Tester].
func (t tested) Test(ctx context.Context) error {
	_, err := t.Webhook.Test(ctx)
	return err
}
