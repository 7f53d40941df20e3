package console

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

// attemptsAPage is how many attempts a page shows.
const attemptsAPage = 50

// attemptsView lists tries to deliver.
type attemptsView struct {
	consumerView
	Attempts []attempt
	Failed   bool
	Older    string // the address of the next page; empty: this is the last
	First    bool   // these are the newest
}

// attempt is a try to deliver as the page shows it.
type attempt struct{ client.Attempt }

// Took is how long it took.
func (a attempt) Took() time.Duration { return time.Duration(a.DurationMS * float64(time.Millisecond)) }

// Number counts attempts of its first change, from 1.
func (a attempt) Number() int { return a.Attempt.Attempt }

// OK reports whether everything was delivered.
func (a attempt) OK() bool { return a.Outcome == "delivered" }

// Which names the changes in short.
func (a attempt) Which() string {
	switch {
	case len(a.Seqs) == 0:
		return plural(a.Changes, "change", "changes")
	case len(a.Seqs) == 1 && a.Changes <= 1:
		return "seq " + strconv.FormatUint(a.Seqs[0], 10)
	}
	return plural(a.Changes, "change", "changes") + " from seq " + strconv.FormatUint(a.Seqs[0], 10)
}

// Whole reports whether every change of it is known by its seq.
func (a attempt) Whole() bool { return len(a.Seqs) > 0 && len(a.Seqs) >= a.Changes }

func consumerAttempts(c *visit) (framed, error) {
	frame, err := consumerFrame(c, "attempts")
	if err != nil {
		return nil, err
	}
	query := c.r.URL.Query()
	v := &attemptsView{consumerView: frame, Failed: query.Get("failed") != "", First: query.Get("cursor") == ""}
	list, next, err := c.api.Attempts(c.ctx, v.Consumer.ID, client.AttemptQuery{Failed: v.Failed, Limit: attemptsAPage, Cursor: query.Get("cursor")})
	if err != nil {
		return nil, err
	}
	for _, one := range list {
		v.Attempts = append(v.Attempts, attempt{one})
	}
	if next != "" {
		q := url.Values{"cursor": {next}}
		if v.Failed {
			q.Set("failed", "1")
		}
		v.Older = v.At + "/attempts?" + q.Encode()
	}
	return v, nil
}

// backfillsShown is how many backfills the page shows.
const backfillsShown = 50

// backfillsView lists the readings of existing rows for a consumer.
type backfillsView struct {
	consumerView
	Backfills []backfill
	More      int // older ones that are not shown
	Why       string
}

// backfill is a backfill as the page shows it.
type backfill struct{ client.Backfill }

// Left is how long it may take; negative: nobody knows.
func (b backfill) Left() time.Duration {
	if b.SecondsLeft == nil {
		return -1
	}
	return time.Duration(*b.SecondsLeft) * time.Second
}

// Share is how much of it is done, in percent.
func (b backfill) Share() int {
	if b.Total == 0 {
		return 0
	}
	return int(min(b.Rows, b.Total) * 100 / b.Total)
}

// Rate is how fast it is, in rows per second.
func (b backfill) Rate() string { return count(int64(b.RowsPerSecond)) }

// Over reports whether it will do nothing more.
func (b backfill) Over() bool { return b.Ended() }

// Took is how long it ran.
func (b backfill) Took() time.Duration {
	if b.StartedAt == nil || b.EndedAt == nil {
		return 0
	}
	return b.EndedAt.Sub(*b.StartedAt)
}

// What says what it reads.
func (b backfill) What() string {
	names := make([]string, 0, 4)
	for i, t := range b.Tables {
		if i == 3 {
			names = append(names, fmt.Sprintf("%d more", len(b.Tables)-3))
			break
		}
		names = append(names, t.Name)
	}
	return strings.Join(names, ", ")
}

func consumerBackfills(c *visit) (framed, error) {
	frame, err := consumerFrame(c, "backfills")
	if err != nil {
		return nil, err
	}
	v := &backfillsView{consumerView: frame}
	list, err := c.api.Backfills(c.ctx, client.BackfillFilter{Consumer: v.Consumer.ID})
	if err != nil {
		v.Why = words(err)
		return v, nil
	}
	for i, one := range list {
		if i == backfillsShown {
			v.More = len(list) - i
			break
		}
		v.Backfills = append(v.Backfills, backfill{one})
	}
	return v, nil
}

func startBackfill(c *visit) (string, error) {
	asked := client.BackfillRequest{Tables: listed(c.r.PostFormValue("tables")), Where: strings.TrimSpace(c.r.PostFormValue("where"))}
	b, err := c.api.StartBackfill(c.ctx, c.r.PathValue("id"), asked)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("Backfill %d has begun: %s.", b.N, plural(len(b.Tables), "table", "tables")), nil
}

// steerBackfill pauses, resumes or cancels a backfill.
func steerBackfill(c *visit) (string, error) {
	id := c.r.PathValue("backfill")
	var err error
	switch verb := c.r.PathValue("verb"); verb {
	case "pause":
		_, err = c.api.PauseBackfill(c.ctx, id)
		return "The backfill is paused: it goes on where it stopped.", err
	case "resume":
		_, err = c.api.ResumeBackfill(c.ctx, id)
		return "The backfill goes on.", err
	case "cancel":
		_, err = c.api.CancelBackfill(c.ctx, id)
		return "The backfill is cancelled. What it sent stays sent.", err
	default:
		return "", fmt.Errorf("a backfill cannot %s: %w", verb, lockstep.ErrInvalid)
	}
}

// seqOf reads a seq of a form.
func seqOf(text string) (uint64, error) {
	seq, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
	if err != nil || seq == 0 {
		return 0, fmt.Errorf("%q is not a seq: they are whole numbers from 1: %w", short(text, 40), lockstep.ErrInvalid)
	}
	return seq, nil
}

// compact writes JSON on one line, for where there is little room.
func compact(raw json.RawMessage, most int) string {
	return short(strings.Join(strings.Fields(string(raw)), " "), most)
}
