package github_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/sandbox"
	"lockstep/sandbox/github"
)

func TestQueriesAreCheckedBeforeAnythingIsRead(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	for query, want := range map[string]string{
		`{ viewer { nonsense } }`:                                            "Field 'nonsense' doesn't exist on type 'User'",
		`{ repository(owner: "acme") { id } }`:                               "missing required arguments: name",
		`{ viewer { login(x: 1) } }`:                                         "doesn't accept argument 'x'",
		`{ viewer }`:                                                         "Field must have selections",
		`{ viewer { login { x } } }`:                                         "Selections can't be made on scalars",
		`{ viewer { login }`:                                                 "Parse error",
		`query($x: Int!) { viewer { login } }`:                               "Variable $x of type Int! was provided invalid value",
		`query($x: Int) { viewer { login } }`:                                "declared by anonymous query but not used",
		`{ repository(owner: $o, name: "x") { id } }`:                        "Variable $o is used by query but not declared",
		`query($o: Int = 1) { repository(owner: $o, name: "x") { id } }`:     "Type mismatch on variable $o",
		`{ repository(owner: 5, name: "x") { id } }`:                         "has an invalid value (5)",
		`{ viewer { repositories { totalCount } } }`:                         "You must provide a `first` or `last` value",
		`{ viewer { repositories(first: 101) { totalCount } } }`:             "exceeds the `first` limit of 100",
		`{ viewer { ...F } }`:                                                "Fragment F was used, but not defined",
		`{ viewer { ... on Issue { id } } }`:                                 "Fragment on Issue can't be spread inside User",
		`{ viewer { login: id login } }`:                                     "field conflict",
		`{ viewer @what { login } }`:                                         "Directive @what is not defined",
		`query($by: IssueOrderField!) { viewer { login @include(if: $by) }}`: "Expected value to not be null",
		`{ organization(login: "acme") { repositories(first: 100) { nodes { issues(first: 100) { nodes { comments(first: 100) { totalCount } } } } } } }`: "exceeds the maximum limit of 500000",
	} {
		data, errs := h.query(query, nil)
		if data != nil || len(errs) == 0 || !strings.Contains(fmt.Sprint(errs), want) {
			t.Errorf("%s: %v %v, want %s", query, data, errs, want)
		}
	}
	if w := h.want(400, "POST", "/graphql", `{"query":`); w.object()["message"] != "Problems parsing JSON" {
		t.Errorf("%s", w.text)
	}
}

func TestQueriesAreAnsweredAsTheyAreAsked(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	owner, name, _ := strings.Cut(h.first(), "/")
	data, errs := h.query(`query Q($o: String!, $n: String!, $deep: Boolean!, $states: [IssueState!]) {
		here: repository(owner: $o, name: $n) {
			__typename ...R
			issues(first: 2, states: $states, orderBy: {field: CREATED_AT, direction: DESC}) @include(if: $deep) { totalCount edges { cursor node { number } } nodes { author { login ... on User { email } } } }
			labels(first: 1) @skip(if: true) { totalCount }
		}
		rateLimit { cost nodeCount }
	}
	fragment R on Repository { name owner { login __typename } }`, object{"o": owner, "n": name, "deep": true, "states": []string{"OPEN", "CLOSED"}})
	if errs != nil {
		t.Fatal(errs)
	}
	here := data["here"].(object)
	issues := here["issues"].(object)
	if here["__typename"] != "Repository" || here["name"] != name || here["owner"].(object)["__typename"] != "Organization" || here["labels"] != nil {
		t.Errorf("%v", here)
	}
	first := issues["nodes"].([]any)[0].(object)["author"].(object)
	if len(issues["edges"].([]any)) != 2 || first["login"] == "" || !strings.HasSuffix(first["email"].(string), ".example") {
		t.Errorf("%v", issues)
	}
	if limit := data["rateLimit"].(object); limit["cost"] != 1.0 || limit["nodeCount"] != 2.0 {
		t.Errorf("%v", limit)
	}
}

// A cursor says where in the order an object was: whoever pages by the time of change
// meets what changed meanwhile again, and skips nothing.
func TestCursorsHoldWhileTheWorldMoves(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 800})
	owner, name, _ := strings.Cut(h.first(), "/")
	seen := map[string]bool{}
	var cursor any
	for {
		data, errs := h.query(`query($o: String!, $n: String!, $c: String) { repository(owner: $o, name: $n) {
			pullRequests(first: 3, after: $c, orderBy: {field: UPDATED_AT, direction: ASC}) { nodes { fullDatabaseId } pageInfo { hasNextPage endCursor } } } }`,
			object{"o": owner, "n": name, "c": cursor})
		if errs != nil {
			t.Fatal(errs)
		}
		page := data["repository"].(object)["pullRequests"].(object)
		for _, p := range page["nodes"].([]any) {
			seen[p.(object)["fullDatabaseId"].(string)] = true
		}
		info := page["pageInfo"].(object)
		if cursor = info["endCursor"]; info["hasNextPage"] != true {
			break
		}
		if len(seen) < 30 && !h.Do(h.first(), 2) {
			t.Fatal("no such repository")
		}
	}
	for id, p := range h.truth("pull") {
		if p["base"].(object)["repo"].(object)["name"] == name && !seen[id] {
			t.Errorf("pull request %s was skipped", id)
		}
	}
	if _, errs := h.query(`{ viewer { repositories(first: 1, after: "nonsense") { totalCount } } }`, nil); !strings.Contains(fmt.Sprint(errs), "does not appear to be a valid cursor") {
		t.Errorf("%v", errs)
	}
}

// REST and GraphQL show the same pull requests; ids that need more than 31 bits are
// null in databaseId and whole in fullDatabaseId.
func TestBothAPIsShowTheSame(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 800})
	small, large := 0, 0
	pulls := h.truth("pull")
	for id, g := range h.truth("pull_request") {
		r := pulls[id]
		if g["fullDatabaseId"] != id || text(g["number"]) != text(r["number"]) || g["title"] != r["title"] || g["updatedAt"] != r["updated_at"] || g["id"] != r["node_id"] {
			t.Errorf("%s: %v and %v", id, g, r)
		}
		if g["databaseId"] == nil {
			large++
		} else {
			small++
		}
		data, errs := h.query(`query($id: ID!) { node(id: $id) { __typename ... on PullRequest { fullDatabaseId } } }`, object{"id": g["id"]})
		if n, ok := data["node"].(object); errs != nil || !ok || n["fullDatabaseId"] != id || n["__typename"] != "PullRequest" {
			t.Errorf("%v %v", data, errs)
		}
	}
	if small == 0 || large == 0 {
		t.Errorf("%d ids within 31 bits, %d beyond", small, large)
	}
	data, errs := h.query(`{ nodes(ids: ["PR_nonsense", "`+github.NodeID("I", 1, 2)+`"]) { id } }`, nil)
	if !slices.Equal(data["nodes"].([]any), []any{nil, nil}) || len(errs) != 2 {
		t.Errorf("%v %v", data, errs)
	}
}

func TestMergeableIsComputedAfterAWhile(t *testing.T) {
	t.Parallel()
	clock := sandbox.NewClock()
	h := open(t, github.Options{Unlimited: true, Clock: clock, Lateness: github.Lateness{Mergeable: sandbox.Duration(time.Minute)}})
	made := h.want(201, "POST", "/repos/"+h.first()+"/pulls", `{"title":"x","head":"x","base":"main"}`).object()
	ask := func() any {
		return h.get("/repos/" + h.first() + "/pulls/" + text(made["number"])).object()["mergeable"]
	}
	if got := ask(); got != nil {
		t.Errorf("at once: %v", got)
	}
	clock.Shift(2 * time.Minute)
	if got := ask(); got != true {
		t.Errorf("later: %v", got)
	}
}

func TestHalfOfAnAnswer(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	owner, name, _ := strings.Cut(h.first(), "/")
	if err := h.Core().Faults().Add(sandbox.Fault{Kind: "graphql_partial", Times: 1}); err != nil {
		t.Fatal(err)
	}
	query := `query($o: String!, $n: String!) { repository(owner: $o, name: $n) { labels(first: 6) { nodes { name } } } }`
	half, errs := h.query(query, object{"o": owner, "n": name})
	whole, none := h.query(query, object{"o": owner, "n": name})
	count := func(d object) int { return len(d["repository"].(object)["labels"].(object)["nodes"].([]any)) }
	if count(half) != 3 || count(whole) != 6 || len(errs) != 1 || none != nil {
		t.Errorf("%d of %d, %v, %v", count(half), count(whole), errs, none)
	}
}

// Both ways through a connection bring everything once, whatever it is sorted by.
func TestConnectionsAreReadForthAndBack(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 600})
	owner, name, _ := strings.Cut(h.first(), "/")
	read := func(by, args, cursor, more string) (seen []string) {
		var at any
		for {
			data, errs := h.query(`query($o: String!, $n: String!, $c: String, $by: IssueOrderField!) { repository(owner: $o, name: $n) {
				issues(`+args+`: $c, orderBy: {field: $by, direction: DESC}) { totalCount nodes { fullDatabaseId } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }`,
				object{"o": owner, "n": name, "c": at, "by": by})
			if errs != nil {
				t.Fatal(errs)
			}
			page := data["repository"].(object)["issues"].(object)
			var ids []string
			for _, n := range page["nodes"].([]any) {
				ids = append(ids, n.(object)["fullDatabaseId"].(string))
			}
			if strings.HasPrefix(args, "last") {
				seen = append(ids, seen...)
			} else {
				seen = append(seen, ids...)
			}
			info := page["pageInfo"].(object)
			if at = info[cursor]; info[more] != true {
				if float64(len(seen)) != page["totalCount"] || len(seen) < 12 {
					t.Errorf("%s by %s: %d of %v", args, by, len(seen), page["totalCount"])
				}
				return seen
			}
		}
	}
	for _, by := range []string{"CREATED_AT", "UPDATED_AT", "COMMENTS"} {
		forth, back := read(by, "first: 5, after", "endCursor", "hasNextPage"), read(by, "last: 5, before", "startCursor", "hasPreviousPage")
		if !slices.Equal(forth, back) {
			t.Errorf("by %s: %v and %v", by, forth, back)
		}
	}
}
