package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// StartKind says how the place where a consumer begins is named.
type StartKind uint8

// The ways to name a place of the stream.
const (
	StartNow       StartKind = iota // changes that commit from now on
	StartBeginning                  // the oldest change that the stream holds
	StartSeq                        // the change with that seq
	StartTime                       // the first change committed at or after a time
	StartAgo                        // the same, a duration before now
)

// Start is where a consumer begins to read.
type Start struct {
	Kind StartKind
	Seq  uint64
	Time time.Time
	Ago  time.Duration
}

// String returns the start as it is written in a configuration.
func (s Start) String() string {
	switch s.Kind {
	case StartBeginning:
		return "beginning"
	case StartSeq:
		return "seq:" + strconv.FormatUint(s.Seq, 10)
	case StartTime:
		return s.Time.Format(time.RFC3339Nano)
	case StartAgo:
		return s.Ago.String()
	case StartNow:
	}
	return "now"
}

// ParseStart reads now, beginning, seq:1234, a time of RFC 3339 or a duration
// before now such as 1h.
func ParseStart(text string) (Start, error) {
	switch text {
	case "now":
		return Start{Kind: StartNow}, nil
	case "beginning":
		return Start{Kind: StartBeginning}, nil
	}
	if number, ok := strings.CutPrefix(text, "seq:"); ok {
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil || seq == 0 {
			return Start{}, fmt.Errorf("%q is not a seq", text)
		}
		return Start{Kind: StartSeq, Seq: seq}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return Start{Kind: StartTime, Time: at}, nil
	}
	if ago, err := ParseDuration(text); err == nil {
		return Start{Kind: StartAgo, Ago: ago}, nil
	}
	return Start{}, fmt.Errorf("%q is not a place to start from", text)
}
