package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"lockstep/internal/mirror"
	"lockstep/source"
)

const (
	// rounds is how often a suspect is looked at that never stays the same.
	rounds = 4
	// few is how many suspects are asked for one by one, even if the list is shorter.
	few = 50
	// chunk is how many suspects are looked at, and repaired, at once.
	chunk = 100
	// mistaken is how far ahead of the API's clock a row's time is a mistake.
	mistaken = 24 * time.Hour
	// The safety valve, as that of the mirror's sweeps.
	valveRows    = 50
	valvePercent = 5
)

// confirm looks at the suspects again, until each is found to differ or not to.
func (k *check) confirm(ctx context.Context) error {
	extras, others, err := k.stage.counts(ctx)
	if err != nil || extras+others == 0 {
		return err
	}
	if err := k.ways(ctx, extras, others); err != nil {
		return err
	}
	for round := 1; round <= rounds; round++ {
		left, err := k.stage.open(ctx, round, byID, byList, unsaid)
		if err != nil || left == 0 {
			return err
		}
		if err := wait(ctx, k.settle()); err != nil {
			return err
		}
		if err := k.oneByOne(ctx, round); err != nil {
			return err
		}
		if err := k.together(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

// ways decides how suspects are looked at: one by one, or, where that is not possible
// or costs more requests, with the list. What is to be deleted is asked for one by one
// where that is possible.
func (k *check) ways(ctx context.Context, extras, others int) error {
	most := max(few, k.pages)
	var listed []kind
	if !k.c.Get || others > most {
		listed = append(listed, missing, stale)
	}
	if !k.c.Get || extras > most && !k.options.Repair {
		listed = append(listed, extra)
	}
	if len(listed) == 0 {
		return nil
	}
	return k.stage.relist(ctx, listed...)
}

// oneByOne looks at the suspects that are asked for by their ids.
func (k *check) oneByOne(ctx context.Context, round int) error {
	for after := ""; ; {
		list, err := k.stage.some(ctx, round, after, chunk, byID)
		if err != nil || len(list) == 0 {
			return err
		}
		after = list[len(list)-1].id
		ids := make([]string, len(list))
		for i := range list {
			ids[i] = list[i].id
		}
		if err := k.config.Mirror.Remind(ctx, k.config.Source, k.c.Name, ids); err != nil {
			return err
		}
		page, err := k.ask(ctx, func() (source.Page, error) { return k.config.Source.Get(ctx, k.c.Name, ids) })
		if err != nil {
			return err
		}
		told, silent := match(list, page.Records)
		if err := k.stage.send(ctx, silent, unsaid); err != nil {
			return err
		}
		if err := k.judge(ctx, round, told, page.At); err != nil {
			return err
		}
	}
}

// look is a suspect with the record that the API has shown.
type look struct {
	suspicion
	record source.Record
}

// match puts suspects and records together. silent are suspects without a record.
func match(list []suspicion, records []source.Record) (told []look, silent []string) {
	byID := map[string]source.Record{}
	for _, r := range records {
		byID[text(r.ID)] = r // of two the last counts, as it does for the mirror
	}
	for _, s := range list {
		if r, ok := byID[s.id]; ok {
			told = append(told, look{s, r})
		} else {
			silent = append(silent, s.id)
		}
	}
	return told, silent
}

// together looks at the suspects that are looked at with the list.
func (k *check) together(ctx context.Context, round int) error {
	n, err := k.stage.open(ctx, round, byList, unsaid)
	if err != nil || n == 0 {
		return err
	}
	started, err := k.each(ctx, func() error { return nil }, func(page source.Page) error {
		ids := make([]string, len(page.Records))
		for i := range page.Records {
			ids[i] = text(page.Records[i].ID)
		}
		list, err := k.stage.among(ctx, round, ids)
		if err != nil || len(list) == 0 {
			return err
		}
		told, _ := match(list, page.Records)
		return k.judge(ctx, round, told, page.At)
	})
	if err != nil {
		return err
	}
	return k.unlisted(ctx, round, started)
}

// unlisted judges the suspects that a complete list has not shown.
func (k *check) unlisted(ctx context.Context, round int, started time.Time) error {
	n, err := k.stage.open(ctx, round, byList, unsaid)
	if err != nil || n == 0 {
		return err
	}
	rows, err := k.stage.rows(ctx)
	if err != nil {
		return err
	}
	hold := n > max(valveRows, rows*valvePercent/100)
	for after := ""; ; {
		list, err := k.stage.some(ctx, round, after, chunk, byList, unsaid)
		if err != nil || len(list) == 0 {
			return err
		}
		after = list[len(list)-1].id
		var gone []look
		var askable []string
		for _, s := range list {
			if s.way == byList && k.c.Get && k.options.Repair {
				askable = append(askable, s.id) // before it is deleted it is asked for
				continue
			}
			gone = append(gone, look{s, source.Record{ID: s.id, Rank: source.RankList, Deleted: true, Reason: "not_listed"}})
		}
		if err := k.stage.send(ctx, askable, byID); err != nil {
			return err
		}
		judge := k.judge
		if hold {
			judge = k.judgeOnly
		}
		if err := judge(ctx, round, gone, started); err != nil {
			return err
		}
	}
}

// judge compares looks with the mirror as it is now. It reports those that differ for
// sure, and repairs them if that was asked for; those in order are no suspects any more.
func (k *check) judge(ctx context.Context, round int, looks []look, at time.Time) error {
	found, err := k.sort(ctx, round, looks, at)
	if err != nil || len(found) == 0 {
		return err
	}
	k.found(found)
	if !k.options.Repair {
		return nil
	}
	return k.repair(ctx, found, at)
}

// judgeOnly is judge without repair.
func (k *check) judgeOnly(ctx context.Context, round int, looks []look, at time.Time) error {
	found, err := k.sort(ctx, round, looks, at)
	k.found(found)
	if k.options.Repair {
		k.held += len(found)
	}
	return err
}

// sort returns what differs for sure, and sees to the other suspects.
func (k *check) sort(ctx context.Context, round int, looks []look, at time.Time) (found []finding, err error) {
	records := make([]source.Record, len(looks))
	for i := range looks {
		looks[i].record.Collection = k.c.Name
		records[i] = looks[i].record
	}
	compared, err := k.config.Mirror.Compare(ctx, k.c.Name, records)
	if err != nil {
		return nil, err
	}
	var done []string
	var keep []suspicion
	for i, l := range looks {
		next, sure := k.weigh(round, l, compared[i], at)
		switch {
		case compared[i].Equal:
			done = append(done, l.id)
		case sure:
			done = append(done, l.id)
			found = append(found, findingOf(l, compared[i]))
		default:
			keep = append(keep, next)
		}
	}
	if err := k.stage.drop(ctx, done); err != nil {
		return nil, err
	}
	return found, k.stage.keep(ctx, keep)
}

// weigh says whether a record that differs does so for sure, and if not, what to
// remember of it.
func (k *check) weigh(round int, l look, c mirror.Compared, at time.Time) (next suspicion, sure bool) {
	next = suspicion{id: l.id, row: rowOf(c), round: round}
	stuck := round == rounds && l.row != nil && bytes.Equal(l.row, next.row)
	if l.row != nil && !bytes.Equal(l.row, next.row) {
		next.row = []byte("written meanwhile") // which no row is, from now on
	}
	if newer := c.There && c.Row.SyncedAt.After(at) && c.Row.SyncedAt.Before(at.Add(mistaken)); newer {
		return next, false // the mirror has looked since
	}
	next.print = []byte{}
	if !l.record.Deleted {
		print, err := k.config.Mirror.Fingerprint(l.record)
		if err != nil {
			print = mirror.Print{}
		}
		next.print = print[:]
	}
	same := l.print != nil && bytes.Equal(l.print, next.print)
	return next, same || c.Edited || stuck
}

// rowOf is what tells whether the mirror's row has been written since.
func rowOf(c mirror.Compared) []byte {
	if !c.There {
		return []byte{}
	}
	return binary.BigEndian.AppendUint64(c.Row.Fingerprint[:], uint64(c.Row.SyncedAt.UnixMicro()))
}

// parkedHint is for records that the mirror has, but not in their table.
const parkedHint = "the table has refused it: see lockstep.sync_parked"

func findingOf(l look, c mirror.Compared) finding {
	f := finding{kind: stale, id: l.id, record: l.record}
	switch {
	case l.record.Deleted:
		f.kind = extra
	case !c.There:
		f.kind = missing
	}
	if c.Parked {
		f.hint = parkedHint
	}
	return f
}

// repair writes what the API has shown.
func (k *check) repair(ctx context.Context, found []finding, at time.Time) error {
	records := make([]source.Record, len(found))
	for i := range found {
		records[i] = found[i].record
	}
	result, err := k.config.Mirror.Apply(ctx, mirror.Change{Collection: k.c.Name, Records: records, At: at, Repair: true, Rewrite: true})
	k.count.Repaired += uint64(result.Inserted + result.Updated + result.Resurrected + result.Deleted)
	return err
}
