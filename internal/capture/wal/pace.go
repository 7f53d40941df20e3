package wal

import "time"

// The walsender sends every row by itself, so that under load each read would bring
// one row and cost both sides a wake-up. A pause between reads lets rows gather in
// the socket. Measured on two cores with rows of 200 bytes in transactions of 100:
// two thirds of the CPU at the same speed on a quiet machine; on a busy one a third
// to two thirds of the CPU, and up to one and a half times the rows.
const (
	// pacePause is shorter than what the socket takes to fill at the walsender's best
	// speed: its buffer holds some 170 small messages, half a millisecond.
	pacePause = 200 * time.Microsecond
	// paceBelow is the mean wait for data below which there is load. A thousand
	// small transactions per second wait longer, and are not held up.
	paceBelow = 100 * time.Microsecond
	// paceEnough is what a read brings when a pause would gain nothing: rows gather
	// by themselves while the ones before are decoded.
	paceEnough = 16 << 10
)

// pacer decides when to let the socket fill up before the next read. The zero pacer
// does so from the first moment on, until it has seen how the data comes.
type pacer struct {
	mean time.Duration // of how long reads waited, the latest counting most
}

// read is told how many bytes a read brought and how long it waited, and returns
// how long to wait before the next one.
func (p *pacer) read(n int, waited time.Duration) time.Duration {
	p.mean += (min(waited, 100*paceBelow) - p.mean) / 8
	if p.mean >= paceBelow || n >= paceEnough {
		return 0
	}
	return pacePause
}
