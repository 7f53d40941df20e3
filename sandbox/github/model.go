package github

import (
	"strings"
	"time"

	"lockstep/sandbox"
)

// doc is a JSON object. Whole numbers in it are int64.
type doc = map[string]any

// account is a user, a bot or an organization. It does not change.
type account struct {
	id      int64
	login   string
	name    string
	email   string
	company string
	city    string
	kind    string // User, Organization
	created time.Time
	simple  doc // as it is inside of other objects
}

// repo is a repository with everything in it.
type repo struct {
	row[repoData]
	// The newest numbers: issues and pull requests share theirs.
	last, lastMilestone int

	issues         table[issueData] // pull requests too, under the ids of their issues
	numbers        map[int]*row[issueData]
	pulls          map[int64]*row[issueData] // by the pull request's id
	moved          map[int]*row[issueData]   // numbers of issues that were transferred
	comments       table[commentData]
	reviews        table[reviewData]
	reviewComments table[lineData]
	labels         table[labelData]
	milestones     table[milestoneData]
	releases       table[releaseData]
	commits        table[commitData]
	bySHA          map[string]*row[commitData]
	events         []activity // newest last

	hidden bool // access was lost
}

type repoData struct {
	owner                    *account
	name, description        string
	language, homepage       string
	topics                   []any
	private, archived        bool
	noIssues                 bool
	branch, head             string // the default branch and its newest commit
	created, updated, pushed time.Time
	stars, forks, size       int64
}

func (r *repoData) fullName() string { return r.owner.login + "/" + r.name }

// issueData is an issue, or a pull request's issue with the pull request.
type issueData struct {
	number           int
	title            string
	body             *string
	state, reason    string
	user, closedBy   *account
	labels           []int64
	assignees        []*account
	milestone        int64 // id; 0: none
	locked           bool
	lockReason       string
	comments         int64
	created, updated time.Time
	edited           time.Time
	closed           time.Time
	pull             *pullData
}

type pullData struct {
	id                          int64
	draft, merged, conflict     bool
	mergedAt, pushed            time.Time
	mergedBy                    *account
	mergeSHA                    string
	headRef, headSHA            string
	baseRef, baseSHA            string
	fork                        bool
	additions, deletions, files int64
	commits, lines              int64 // lines: review comments
	reviewers                   []*account
}

type commentData struct {
	number           int  // of the issue
	onPull           bool // which is a pull request's
	user             *account
	body             string
	created, updated time.Time
}

type reviewData struct {
	issue              *row[issueData]
	user               *account
	body, state        string // state in upper case
	commit             string
	created, submitted time.Time
	updated            time.Time
}

// lineData is a comment on a line of a pull request.
type lineData struct {
	issue            *row[issueData]
	review, reply    int64
	user             *account
	body, path, hunk string
	line             int64
	commit           string
	created, updated time.Time
}

type labelData struct {
	name, color, description string
	standard                 bool
	created, updated         time.Time
}

type milestoneData struct {
	number             int
	title, description string
	state              string
	creator            *account
	created, updated   time.Time
	closed, due        time.Time
}

type releaseData struct {
	tag, target, name, body     string
	draft, pre                  bool
	author                      *account
	created, updated, published time.Time
}

type commitData struct {
	sha, tree, message   string
	parents              []string
	author               *account
	authored, committed  time.Time
	ref                  string // the branch that it was pushed to
	additions, deletions int64
}

// activity is one push, merge or the like, as /activity lists it.
type activity struct {
	id            int64
	kind          string
	ref           string
	before, after string
	at            time.Time
	actor         *account
}

// stamp is a time as GitHub writes it; nil for the zero time.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// orNull is a text, or null for the empty one.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func text(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

func fold(name string) string { return strings.ToLower(name) }

// sha makes up a commit's or tree's id.
func sha(d *sandbox.Dice) string {
	const hex = "0123456789abcdef"
	var b [40]byte
	for i := 0; i < len(b); i += 10 {
		bits := d.Uint64()
		for j := range 10 {
			b[i+j] = hex[bits>>(4*j)&15]
		}
	}
	return string(b[:])
}
