package console

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

// peeked is how many of the messages that come next are shown.
const peeked = 20

// messagesView is the first page of a consumer: how it is, and what comes next.
type messagesView struct {
	consumerView
	Next  []message
	Why   string // why there is no look at what comes next
	Stuck []stuckKey
}

// message is a change as a page shows it.
type message struct {
	Seq      uint64
	Database string
	Action   string
	Table    string
	Key      string
	At       time.Time
	Record   json.RawMessage
	Changes  json.RawMessage // the old values of what changed
	Meta     json.RawMessage
}

// stuckKey is a row whose later changes wait.
type stuckKey struct {
	Seq      uint64     `json:"seq"`
	State    string     `json:"state"`
	Attempts int        `json:"attempts"`
	ForMS    int64      `json:"for_ms"`
	Until    *time.Time `json:"until"`
	Reason   string     `json:"reason"`
	Holder   string     `json:"holder"`
	Behind   uint64     `json:"behind"`
}

// For is how long the row has been waiting.
func (k stuckKey) For() time.Duration { return time.Duration(k.ForMS) * time.Millisecond }

func consumerMessages(c *visit) (framed, error) {
	frame, err := consumerFrame(c, "messages")
	if err != nil {
		return nil, err
	}
	v := &messagesView{consumerView: frame}
	var more struct {
		Stats struct {
			Stuck []stuckKey `json:"stuck_keys"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(v.Consumer.Raw, &more); err == nil {
		v.Stuck = more.Stats.Stuck
	}
	if c.r.Header.Get("HX-Target") != "live" {
		v.peek(c)
	}
	return v, nil
}

// nextMessages writes the list of what comes next alone.
func nextMessages(c *visit) {
	frame, err := consumerFrame(c, "messages")
	if err != nil {
		c.fail(err)
		return
	}
	v := &messagesView{consumerView: frame}
	v.peek(c)
	c.write(c.w, http.StatusOK, "consumer", "next", v)
}

// peek looks at what comes next. That it cannot is told in the place of the list.
func (v *messagesView) peek(c *visit) {
	list, err := c.api.Peek(c.ctx, v.Consumer.ID, peeked)
	if err != nil {
		v.Why = words(err)
		return
	}
	for i := range list {
		v.Next = append(v.Next, messageOf(&list[i]))
	}
}

func messageOf(one *client.Change) message {
	m := &one.Metadata
	return message{
		Seq: m.Seq, Database: m.Database, Action: one.Action, Table: tableOf(m), Key: short(strings.Join(m.RecordPKs, ", "), 60), At: m.CommitTime(),
		Record: one.Record, Changes: one.Changes, Meta: m.Raw,
	}
}

func tableOf(m *client.Metadata) string {
	if m.TableName == "" {
		return ""
	}
	return m.Table()
}

func pauseConsumer(c *visit) (string, error) {
	return "Paused: nothing is handed out until you resume.", c.api.PauseConsumer(c.ctx, c.r.PathValue("id"))
}

func resumeConsumer(c *visit) (string, error) {
	return "Resumed.", c.api.ResumeConsumer(c.ctx, c.r.PathValue("id"))
}

func testConsumer(c *visit) (string, error) {
	result, err := c.api.TestConsumer(c.ctx, c.r.PathValue("id"))
	if err != nil {
		return "", err
	}
	took := spanText(time.Duration(result.DurationMS * float64(time.Millisecond)))
	if !result.Delivered {
		return "", fmt.Errorf("the destination did not take the test event (%s): %s", took, result.Error)
	}
	return "The destination took a test event in " + took + ".", nil
}

// seekConsumer moves a consumer to where the form says.
func seekConsumer(c *visit) (string, error) {
	to := c.r.PostFormValue("to")
	where := strings.TrimSpace(c.r.PostFormValue("where"))
	switch {
	case to == "seq" && where != "":
		to = "seq:" + strings.TrimPrefix(strings.ReplaceAll(where, ",", ""), "seq:")
	case to == "time" && where != "":
		to = instant(where)
	case to != "beginning" && to != "now":
		return "", fmt.Errorf("say where to: a seq such as 1234, or a time such as 2026-11-01T00:00:00Z or 1h: %w", lockstep.ErrInvalid)
	}
	if err := c.api.Seek(c.ctx, c.r.PathValue("id"), to); err != nil {
		return "", err
	}
	return "Moved to " + strings.Replace(to, "seq:", "seq ", 1) + ". What was in flight is handed out anew where it comes after that place.", nil
}

// instant gives a time as people write it the form that the API takes.
func instant(text string) string {
	for _, form := range []string{"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(form, text, time.UTC); err == nil {
			return at.Format(time.RFC3339Nano)
		}
	}
	return text
}

// deleteConsumer deletes a consumer whose name was typed, and leads to the list.
func deleteConsumer(c *visit) {
	k, err := c.api.Consumer(c.ctx, c.r.PathValue("id"))
	if errors.Is(err, lockstep.ErrNotFound) {
		c.leave(c.w, c.r, notice{Kind: "failed", Text: "That consumer is not there any more: somebody else has deleted it."})
		c.go_(Prefix + "consumers")
		return
	}
	if err != nil {
		c.fail(err)
		return
	}
	api := c.api
	if k.ManagedBy == "apply" {
		api = api.With(client.Claim{Override: true})
	}
	if typed := strings.TrimSpace(c.r.PostFormValue("name")); typed != k.Name {
		err = fmt.Errorf("nothing was deleted: the name that was typed is not %q", k.Name)
	} else {
		err = api.DeleteConsumer(c.ctx, k.ID)
	}
	switch {
	case statusOf(err) == http.StatusUnauthorized:
		c.fail(err)
	case errors.Is(err, lockstep.ErrNotFound):
		c.leave(c.w, c.r, notice{Kind: "failed", Text: "Consumer " + k.Name + " is not there any more: somebody else has deleted it."})
		c.go_(Prefix + "consumers")
	case err != nil:
		c.leave(c.w, c.r, notice{Kind: "failed", Text: sentence(words(err))})
		c.go_(Prefix + "consumers/" + url.PathEscape(k.ID) + "/settings")
	default:
		c.leave(c.w, c.r, notice{Kind: "done", Text: "Consumer " + k.Name + " is deleted, with its position and its dead letters."})
		c.go_(Prefix + "consumers")
	}
}

// replayMost bounds how many single changes one press of a button replays.
const replayMost = 100

// replayConsumer delivers changes again: single ones, a range, or what failed since.
func replayConsumer(c *visit) (string, error) {
	id, form := c.r.PathValue("id"), c.r.Form
	if seqs := form["seq"]; len(seqs) > 0 {
		return replaySeqs(c, id, seqs)
	}
	asked := client.Replay{FailedSince: instant(strings.TrimSpace(form.Get("failed_since")))}
	if asked.FailedSince == "" {
		asked.From, asked.To = instant(strings.TrimSpace(form.Get("from"))), instant(strings.TrimSpace(form.Get("to")))
	}
	if asked == (client.Replay{}) {
		return "", fmt.Errorf("say which changes: from where, or since when: %w", lockstep.ErrInvalid)
	}
	n, err := c.api.Replay(c.ctx, id, asked)
	if err != nil {
		return "", err
	}
	return plural(n, "change is", "changes are") + " delivered again, each when it is its row's turn.", nil
}

func replaySeqs(c *visit, id string, seqs []string) (string, error) {
	if len(seqs) > replayMost {
		return "", fmt.Errorf("these are more than %d changes: replay them as a range: %w", replayMost, lockstep.ErrInvalid)
	}
	done := 0
	var last error
	for _, text := range seqs {
		seq, err := seqOf(text)
		if err != nil {
			return "", err
		}
		if _, err := c.api.Replay(c.ctx, id, client.Replay{Seq: seq}); err != nil {
			last = err
			if !errors.Is(err, lockstep.ErrConflict) && !errors.Is(err, lockstep.ErrInvalid) && !errors.Is(err, lockstep.ErrNotFound) {
				break // the others would meet the same
			}
			continue
		}
		done++
	}
	if done < len(seqs) && last != nil {
		return "", fmt.Errorf("%d of %d changes are delivered again; %s", done, len(seqs), cmp.Or(words(last), "the others are not"))
	}
	return plural(done, "change is", "changes are") + " delivered again, when it is the row's turn.", nil
}
