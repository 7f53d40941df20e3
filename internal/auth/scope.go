package auth

import (
	"fmt"
	"slices"
	"strings"

	"lockstep"
)

// Need is what a route asks of its caller.
type Need int

// What routes ask for, from nothing to everything.
const (
	NeedNothing Need = iota // health, metrics, documentation of the API
	NeedRead                // looks at definitions, states and changes
	NeedPeek                // looks at what one consumer would get
	NeedConsume             // takes and settles changes of one consumer
	NeedWrite               // creates, alters and deletes consumers and their positions
	NeedAdmin               // tokens
)

// String returns the scope that the need is documented with.
func (n Need) String() string {
	switch n {
	case NeedRead:
		return "read"
	case NeedPeek:
		return "read or consume"
	case NeedConsume:
		return "consume"
	case NeedWrite:
		return "write"
	case NeedAdmin:
		return "admin"
	case NeedNothing:
	}
	return "none"
}

// Scopes is what a token allows: admin, write, read, consume for all consumers, or
// consume:<name or id of a consumer> for one.
type Scopes []string

// ParseScopes checks the scopes of a new token. There must be at least one.
func ParseScopes(texts []string) (Scopes, error) {
	if len(texts) == 0 {
		return nil, fmt.Errorf("a token needs a scope: admin, write, read, consume or consume:<consumer>: %w", lockstep.ErrInvalid)
	}
	var out Scopes
	for _, s := range texts {
		consumer, one := strings.CutPrefix(s, "consume:")
		known := s == "admin" || s == "write" || s == "read" || s == "consume" || one && consumer != ""
		if !known {
			return nil, fmt.Errorf("unknown scope %q: use admin, write, read, consume or consume:<consumer>: %w", s, lockstep.ErrInvalid)
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}

// Allows reports whether the scopes meet the need. id and name are those of the
// consumer that the call is about, or empty.
//
// admin allows everything. write allows what read allows, and to create, alter and
// consume. read allows to look. consume allows to look at and take the changes of
// its consumers, and nothing else.
func (s Scopes) Allows(need Need, id, name string) bool {
	if need == NeedNothing {
		return true
	}
	for _, scope := range s {
		if allows(scope, need, id, name) {
			return true
		}
	}
	return false
}

func allows(scope string, need Need, id, name string) bool {
	switch scope {
	case "admin":
		return true
	case "write":
		return need != NeedAdmin
	case "read":
		return need == NeedRead || need == NeedPeek
	case "consume":
		return need == NeedConsume || need == NeedPeek
	}
	consumer, ok := strings.CutPrefix(scope, "consume:")
	if !ok || consumer == "" || consumer != id && consumer != name {
		return false
	}
	return need == NeedConsume || need == NeedPeek
}
