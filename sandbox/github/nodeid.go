package github

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// The kinds of objects as node ids begin.
const (
	nodeRepo      = "R"
	nodeUser      = "U"
	nodeOrg       = "O"
	nodeBot       = "BOT"
	nodeIssue     = "I"
	nodePull      = "PR"
	nodeComment   = "IC"
	nodeReview    = "PRR"
	nodeLine      = "PRRC"
	nodeLabel     = "LA"
	nodeMilestone = "MI"
	nodeRelease   = "RE"
	nodeCommit    = "C"
)

// nodeID is an id as GitHub makes them: the kind, then a MessagePack array of 0, the
// repository (0: none) and the object.
func nodeID(kind string, repository, id int64) string {
	out := []byte{0x93, 0}
	if repository == 0 {
		out[0] = 0x92
	} else {
		out = packed(out, repository)
	}
	return kind + "_" + base64.RawURLEncoding.EncodeToString(packed(out, id))
}

func packed(dst []byte, n int64) []byte {
	if n <= 0xffffffff {
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(n)) //nolint:gosec // ids are positive
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), uint64(n)) //nolint:gosec // ids are positive
}

// commitNode is the id of a commit, whose number is its hash.
func commitNode(repository int64, sha string) string {
	out := packed([]byte{0x93, 0}, repository)
	out = append(out, 0xda, 0, byte(len(sha)))
	return nodeCommit + "_" + base64.RawURLEncoding.EncodeToString(append(out, sha...))
}

// node is what a node id says.
type node struct {
	kind           string
	repository, id int64
	sha            string
}

func parseNode(text string) (node, bool) {
	kind, rest, ok := strings.Cut(text, "_")
	raw, err := base64.RawURLEncoding.DecodeString(rest)
	if !ok || err != nil || len(raw) < 3 || raw[1] != 0 {
		return node{}, false
	}
	n := node{kind: kind}
	rest2 := raw[2:]
	if raw[0] == 0x93 {
		if n.repository, rest2, ok = unpacked(rest2); !ok {
			return node{}, false
		}
	}
	if len(rest2) == 43 && rest2[0] == 0xda {
		n.sha = string(rest2[3:])
		return n, true
	}
	n.id, rest2, ok = unpacked(rest2)
	return n, ok && len(rest2) == 0
}

func unpacked(raw []byte) (n int64, rest []byte, ok bool) {
	switch {
	case len(raw) >= 5 && raw[0] == 0xce:
		return int64(binary.BigEndian.Uint32(raw[1:])), raw[5:], true
	case len(raw) >= 9 && raw[0] == 0xcf:
		return int64(binary.BigEndian.Uint64(raw[1:])), raw[9:], true //nolint:gosec // made by packed
	}
	return 0, nil, false
}
