package backfill

import (
	"context"
	"errors"
	"time"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/wal"
)

// The ends of a stride beside its time.
const (
	maxStride = 100_000   // rows: what a crash makes to be looked up stays small
	muchAgain = mostAgain // rows to be read again, before others are read
)

// stride is pages of one table that follow each other: one is read while those before
// it are on their way. Only pages along the key follow each other; what is read again
// goes alone.
type stride struct {
	r      *Runner
	job    *job
	source *Source
	to     *Consumer
	at     int
	state  publish.TableState

	began  time.Time
	pages  int
	rows   int
	ahead  [][]byte   // the key up to which was read, beyond the job's cursor
	alone  bool       // no page may follow
	flying []*reading // the oldest first
	tail   *reading   // what was read behind them, with nothing to be sent; nil: nothing was
	fault  error      // why there is no page; it survives what capture makes of it
	spare  []*rows    // memory for pages to come
}

// table does the next thing of a table: pages, or the end.
func (r *Runner) table(ctx context.Context, j *job, source *Source, c *Consumer, at int) error {
	if j.paced != at {
		j.pace, j.paced = newPace(r.tune.most), at
	}
	r.began(j, at)
	p := &reading{r: r, job: j, source: source, to: c, at: at}
	err := p.prepare(ctx)
	switch {
	case err != nil:
	case !j.unsure && j.work != nil && j.work.table == at && j.work.complete():
		err = r.moved(ctx, p)
	default:
		j.setSlow(time.Now())
		s := &stride{r: r, job: j, source: source, to: c, at: at, state: p.state, began: time.Now()}
		err = s.run(ctx)
	}
	switch {
	case err == nil:
		return r.save(ctx, j)
	case ctx.Err() != nil:
		return err
	}
	return p.failed(ctx, err)
}

// complete reports whether every row was read that there was.
func (w *work) complete() bool { return w.done && w.replay == nil && len(w.again) == 0 }

func (s *stride) run(ctx context.Context) error {
	err := s.source.Capture.InterleaveEach(ctx, s.job.rec.Places[s.at].OID, s.read, s.placed)
	switch {
	case err != nil && s.fault != nil && !errors.Is(err, lockstep.ErrUnavailable):
		return s.fault
	case err != nil:
		return err
	}
	if s.tail != nil {
		s.tail.apply(wal.Interleaved{})
	}
	return nil
}

// read is called between the watermarks. It returns the next page that has rows.
func (s *stride) read(ctx context.Context, low uint64) (wal.Page, error) {
	s.job.setSlow(time.Time{})
	for !s.over() {
		p, err := s.next(ctx, low)
		if p == nil || err != nil {
			return s.ends(err)
		}
		page, err := p.fill(ctx)
		if err != nil && !errors.Is(err, errNothing) {
			return s.ends(err)
		}
		s.pages, s.rows = s.pages+1, s.rows+p.rows.count
		p.learn()
		s.ahead = p.rows.last
		s.alone = s.alone || p.rows.end || p.rows.last == nil
		if err == nil {
			s.flying, s.tail = append(s.flying, p), nil
			return page, nil
		}
		if s.tail != nil {
			s.keep(s.tail)
		}
		s.tail = p
	}
	return s.ends(nil)
}

func (s *stride) ends(err error) (wal.Page, error) {
	s.fault = err
	if err == nil {
		err = wal.ErrNoPage
	}
	return wal.Page{}, err
}

// over reports whether it is time to save, or somebody else's turn.
func (s *stride) over() bool {
	switch {
	case s.pages == 0:
		return false
	case s.alone || s.rows >= maxStride || time.Since(s.began) >= s.r.tune.stride || len(s.job.work.again) >= muchAgain:
		return true
	}
	return !s.job.rec.Gap && s.r.holds(s.to, time.Now()) != ""
}

// next prepares the next page; nil: there is none.
func (s *stride) next(ctx context.Context, low uint64) (*reading, error) {
	p := &reading{r: s.r, job: s.job, source: s.source, to: s.to, at: s.at, state: s.state, low: low}
	if s.pages == 0 {
		if err := p.locate(ctx); err != nil || !p.choose() {
			return nil, err
		}
		s.alone = p.slice.these != nil || s.job.work.replay != nil
	} else {
		p.aim()
		p.slice.after = s.ahead
	}
	if n := len(s.spare); n > 0 {
		p.slice.spare, s.spare = s.spare[n-1], s.spare[:n-1]
	}
	return p, nil
}

// keep takes back the memory of a page.
func (s *stride) keep(p *reading) { s.spare = append(s.spare, p.rows) }

// placed is called when a page is on disk.
func (s *stride) placed(result wal.Interleaved) error {
	p := s.flying[0]
	s.flying = s.flying[1:]
	p.apply(result)
	s.keep(p)
	return nil
}
