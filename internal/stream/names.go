package stream

import (
	"fmt"
	"strings"

	"lockstep"
)

const (
	logStreamPrefix  = "LOCKSTEP_"
	logSubjectPrefix = "lockstep-log."
	stateBucket      = "lockstep-state"
	markBucket       = "lockstep-marks"
	markKeyPrefix    = "mark." // in the bucket of states, where older versions kept marks
	deadStream       = "LOCKSTEP-DEAD"
	deadSubject      = "lockstep-dead."

	// maxName leaves room for the prefixes within JetStream's 255 bytes for a name.
	maxName = 200
)

// encodeName turns any name into one that may stand in a stream's name, a subject
// and a key: letters, digits, dash and underscore stay, every other byte becomes
// "=" and two hex digits. Different names stay different.
func encodeName(name string) (string, error) {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("a name is empty: %w", lockstep.ErrInvalid)
	}
	if b.Len() > maxName {
		return "", fmt.Errorf("name %q is too long: %w", name, lockstep.ErrInvalid)
	}
	return b.String(), nil
}
