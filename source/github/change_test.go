package github_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	core "lockstep/sandbox"
	"lockstep/source"

	sandbox "lockstep/sandbox/github"
)

// poll reads a feed to its end.
func poll(t testing.TB, s source.Source, feed string, at source.Cursor) ([]source.Record, source.Cursor) {
	t.Helper()
	var out []source.Record
	for {
		page, err := s.Changes(t.Context(), feed, at, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, page.Records...)
		if at = page.Next; !page.More {
			return out, at
		}
	}
}

// Polling what did not change costs nothing of GitHub's limit.
func TestPollingWhatDidNotChangeIsConditional(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{})
	s := h.open(t)
	for _, feed := range []string{"issue", "issue_comment", "review_comment", "label", "release"} {
		at, err := s.Start(t.Context(), feed)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			_, at = poll(t, s, feed, at)
		}
		h.Core().Log().Clear()
		if got, _ := poll(t, s, feed, at); len(got) != 0 {
			t.Errorf("%s: %d records changed", feed, len(got))
		}
		// The repositories themselves are listed; their five lists are as they were.
		if lists := h.asked("/repos/"); lists[304] != 5 || lists[200] != 0 {
			t.Errorf("%s: %v", feed, lists)
		}
	}
}

// An issue that was deleted, or moved to another repository, is found to be gone; the
// moved one is another record by then.
func TestDeletedAndTransferredIssues(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{})
	s := h.open(t)
	name, _, ids := h.some(t, "issue")
	all(t, s, "issue")
	number := func(id string) (n int) {
		_, _ = fmt.Sscan(fmt.Sprint(h.objects(t, "issue")[id]["number"]), &n)
		return n
	}
	var other string
	for _, r := range h.objects(t, "repository") {
		if r["full_name"] != name {
			other = r["full_name"].(string)
		}
	}
	if !h.DeleteIssue(name, number(ids[0])) || !h.TransferIssue(name, number(ids[1]), other) {
		t.Fatal("not done")
	}
	page, err := s.Get(t.Context(), "issue", ids[:2])
	if err != nil || len(page.Records) != 2 || !page.Records[0].Deleted || !page.Records[1].Deleted {
		t.Errorf("%v %v", page.Records, err)
	}
	swept := map[string]bool{}
	for at := source.Cursor(nil); ; {
		page, err := s.IDs(t.Context(), "issue", at)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			swept[r.ID] = true
		}
		if at = page.Next; at == nil {
			break
		}
	}
	if swept[ids[0]] || swept[ids[1]] || len(swept) != len(h.truth(t, "issue")) {
		t.Errorf("a sweep found %d", len(swept))
	}
}

// Issues that are switched off are not deleted.
func TestIssuesThatAreSwitchedOff(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{})
	s := h.open(t)
	name, _, ids := h.some(t, "issue")
	all(t, s, "issue")
	h.patch(t, "/repos/"+name, `{"has_issues":false}`)
	if page, err := s.Get(t.Context(), "issue", ids[:1]); kindOf(err) != source.Forbidden {
		t.Errorf("%v %v", page.Records, err)
	}
}

// patch writes as somebody else.
func (h hub) patch(t testing.TB, path, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, h.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	w.Body.Close()
	if w.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d", path, w.StatusCode)
	}
}

// A repository that is renamed while it is read goes on under its number, and is the same
// one afterwards.
func TestARepositoryIsRenamedWhileItIsRead(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{Repositories: 1, History: 1500})
	s := h.open(t)
	name, id, _ := h.some(t, "issue")
	for _, collection := range []string{"issue", "pull_request", "commit"} {
		first, err := s.Backfill(t.Context(), collection, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.patch(t, "/repos/"+name, `{"name":"renamed-`+strings.ReplaceAll(collection, "_", "-")+`"}`)
		name = "acme/renamed-" + strings.ReplaceAll(collection, "_", "-")
		found := len(first.Records)
		for at := first.Next; at != nil; {
			page, err := s.Backfill(t.Context(), collection, at)
			if err != nil {
				t.Fatal(err)
			}
			found += len(page.Records)
			at = page.Next
		}
		if want := len(h.truth(t, collection)); found != want || found <= len(first.Records) {
			t.Errorf("%s: %d of %d", collection, found, want)
		}
	}
	page, err := s.Get(t.Context(), "repository", []string{id})
	if err != nil || len(page.Records) != 1 || !strings.Contains(string(page.Records[0].Data), name) {
		t.Errorf("%v %v", page.Records, err)
	}
}

// What the source has seen it fetches with one request; what it has not, it looks for,
// once for all that is asked for at a time.
func TestRecordsAreFetchedByWhereTheyLie(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{History: 900})
	for _, collection := range []string{"issue", "issue_comment", "review_comment", "pull_request", "review", "milestone", "release", "label", "commit"} {
		s := h.open(t)
		_, _, ids := h.some(t, collection)
		all(t, s, collection)
		h.Core().Log().Clear()
		page, err := s.Get(t.Context(), collection, ids[:1])
		if err != nil || len(page.Records) != 1 || page.Records[0].Deleted || page.Records[0].Rank != source.RankObject {
			t.Fatalf("%s: %v %v", collection, page.Records, err)
		}
		if n := h.Core().Log().Summary().Requests; n != 1 {
			t.Errorf("%s: %d requests for one that was seen", collection, n)
		}
		fresh := h.open(t)
		h.Core().Log().Clear()
		page, err = fresh.Get(t.Context(), collection, []string{ids[0], "no-such-id"})
		if err != nil || len(page.Records) != 2 {
			t.Fatalf("%s: %v %v", collection, page.Records, err)
		}
		for _, r := range page.Records {
			if r.Deleted == (r.ID == ids[0]) {
				t.Errorf("%s %s: deleted is %v", collection, r.ID, r.Deleted)
			}
		}
		if collection == "commit" {
			continue // its id says where it lies
		}
		// Nobody knows in which repository that was: it may be one that is hidden.
		if page, err = fresh.Get(t.Context(), collection, []string{"1"}); kindOf(err) != source.Forbidden {
			t.Errorf("%s: %v %v", collection, page.Records, err)
		}
		first := h.Core().Log().Summary().Requests
		if page, err = fresh.Get(t.Context(), collection, []string{"2"}); kindOf(err) != source.Forbidden {
			t.Errorf("%s: %v %v", collection, page.Records, err)
		}
		if _, err = fresh.Get(t.Context(), collection, ids[:1]); err != nil {
			t.Error(err)
		}
		if n := h.Core().Log().Summary().Requests - first; n != 1 {
			t.Errorf("%s: %d requests for one that was found before, and one that was looked for", collection, n)
		}
	}
}

// Whoever has mirrored a record tells where it lies.
func TestWhatWasMirroredIsKnown(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{})
	s := h.open(t)
	name, _, ids := h.some(t, "issue")
	s.Learn([]source.Record{{Collection: "issue", ID: ids[0], Data: h.truth(t, "issue")[ids[0]]}})
	page, err := s.Get(t.Context(), "issue", ids[:1])
	if n := h.Core().Log().Summary().Requests; err != nil || len(page.Records) != 1 || n != 1 {
		t.Errorf("%v %v, %d requests", page.Records, err, n)
	}
	// So a deletion is told from lost access, although this source never saw the issue.
	known := []source.Record{{Collection: "issue", ID: ids[1], Data: h.truth(t, "issue")[ids[1]]}}
	var number int
	_, _ = fmt.Sscan(fmt.Sprint(h.objects(t, "issue")[ids[1]]["number"]), &number)
	h.DeleteIssue(name, number)
	fresh := h.open(t)
	fresh.Learn(known)
	if page, err := fresh.Get(t.Context(), "issue", ids[1:2]); err != nil || len(page.Records) != 1 || !page.Records[0].Deleted {
		t.Errorf("%v %v", page.Records, err)
	}
}

// A commit is there as long as the default branch has it.
func TestACommitThatIsNotOfTheDefaultBranchIsGone(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{History: 600})
	s := h.open(t)
	commits := h.truth(t, "commit")
	for _, p := range h.objects(t, "pull") {
		id := fmt.Sprintf("%v-%v", p["repository_id"], p["head"].(object)["sha"])
		if commits[id] != nil {
			continue
		}
		if page, err := s.Get(t.Context(), "commit", []string{id}); err != nil || len(page.Records) != 1 || !page.Records[0].Deleted {
			t.Errorf("%s: %v %v", id, page.Records, err)
		}
		return
	}
	t.Fatal("every branch was merged")
}

// A webhook says where the record lies that it is about: it is fetched with one request.
func TestHintsAreFetched(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{History: 900})
	for _, c := range []struct{ collection, event, member string }{
		{"issue", "issues", "issue"}, {"issue_comment", "issue_comment", "comment"}, {"pull_request", "pull_request", "pull_request"},
		{"review", "pull_request_review", "review"}, {"review_comment", "pull_request_review_comment", "comment"}, {"label", "label", "label"},
		{"milestone", "milestone", "milestone"}, {"release", "release", "release"},
	} {
		s := h.open(t)
		_, repository, ids := h.some(t, c.collection)
		o := h.objects(t, c.collection)[ids[0]]
		node, number := o["node_id"], o["number"]
		if o["fullDatabaseId"] != nil {
			node = o["id"]
		}
		if number == nil {
			number = 0
		}
		body := fmt.Sprintf(`{"action":"edited","%s":{"id":%s,"node_id":"%v","number":%v},"repository":{"id":%s}}`, c.member, ids[0], node, number, repository)
		records, err := s.Receive(t.Context(), signed(c.event, body), []byte(body))
		i := slices.IndexFunc(records, func(r source.Record) bool { return r.Collection == c.collection && r.ID == ids[0] })
		if err != nil || i < 0 {
			t.Errorf("%s: %v %v", c.collection, records, err)
			continue
		}
		h.Core().Log().Clear()
		page, err := s.Get(t.Context(), c.collection, ids[:1])
		if n := h.Core().Log().Summary().Requests; err != nil || len(page.Records) != 1 || page.Records[0].Deleted || n != 1 {
			t.Errorf("%s: %v %v, %d requests", c.collection, page.Records, err, n)
		}
	}
}

// Lists that misbehave lose nothing and end.
func TestListsThatMisbehave(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{History: 900, Repositories: 1})
	s := h.open(t)
	spoil := func(kind, path string) {
		t.Helper()
		h.Core().Faults().Clear()
		if err := h.Core().Faults().Add(core.Fault{Kind: kind, Path: path, Times: 1}); err != nil {
			t.Fatal(err)
		}
	}
	first, err := s.Backfill(t.Context(), "commit", nil)
	if err != nil || first.Next == nil {
		t.Fatal(err)
	}
	spoil("list_stuck", "/commits")
	if _, err := s.Backfill(t.Context(), "commit", first.Next); err == nil {
		t.Error("a list that stands still was read")
	}
	h.Core().Faults().Clear()
	spoil("graphql_partial", "/graphql")
	if _, err := s.Backfill(t.Context(), "pull_request", nil); kindOf(err) != source.Retry {
		t.Errorf("half of an answer: %v", err)
	}
	for _, status := range []int{502, 504} {
		h.Core().Faults().Clear()
		h.Core().Log().Clear()
		if err := h.Core().Faults().Add(core.Fault{Kind: "status", Status: status, Path: "/graphql", Times: 2}); err != nil {
			t.Fatal(err)
		}
		if page, err := s.Backfill(t.Context(), "pull_request", nil); err != nil || len(page.Records) == 0 {
			t.Errorf("%d twice: %d records, %v", status, len(page.Records), err)
		}
	}
}
