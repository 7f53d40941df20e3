package github_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/sandbox"
	"lockstep/sandbox/github"
)

func TestPagesAreLinkedByTheRepositorysNumber(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	r := h.get("/repos/" + h.first()).object()
	w := h.get("/repos/" + h.first() + "/issues?state=all&per_page=3")
	at := fmt.Sprintf("%s/repositories/%s/issues?", h.url, text(r["id"]))
	if link := w.header.Get("Link"); !strings.HasPrefix(link, "<"+at+"page=2&per_page=3&state=all>; rel=\"next\", <"+at) || !strings.HasSuffix(link, `rel="last"`) {
		t.Errorf("Link: %s", link)
	}
	w = h.get(h.next(w))
	for _, rel := range []string{"prev", "next", "last", "first"} {
		if !strings.Contains(w.header.Get("Link"), `rel="`+rel+`"`) {
			t.Errorf("page 2: %s", w.header.Get("Link"))
		}
	}
	if got := h.get("/repos/" + h.first() + "/issues?state=all&per_page=1000").list(); len(got) > 100 {
		t.Errorf("%d in one page", len(got))
	}
	if got := h.get("/repos/" + h.first() + "/labels?page=99").list(); len(got) != 0 {
		t.Errorf("%d behind the end", len(got))
	}
}

func TestListsAreOrderedAsTheyAreAskedFor(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 600})
	at := "/repos/" + h.first()
	rising := func(path, field string) {
		t.Helper()
		list := h.all(path)
		if !slices.IsSortedFunc(list, func(a, b object) int { return strings.Compare(a[field].(string), b[field].(string)) }) || len(list) < 5 {
			t.Errorf("%s: %d, not by %s", path, len(list), field)
		}
	}
	falling := func(path, field string) {
		t.Helper()
		list := h.all(path)
		slices.Reverse(list)
		if !slices.IsSortedFunc(list, func(a, b object) int { return strings.Compare(a[field].(string), b[field].(string)) }) || len(list) < 5 {
			t.Errorf("%s: %d, not by %s, newest first", path, len(list), field)
		}
	}
	falling(at+"/issues?state=all", "created_at")
	falling(at+"/issues?state=all&sort=updated", "updated_at")
	rising(at+"/issues?state=all&sort=updated&direction=asc", "updated_at")
	falling(at+"/pulls?state=all", "created_at")
	rising(at+"/pulls?state=all&sort=updated", "updated_at") // ascending unless sorted by creation
	rising(at+"/issues/comments", "created_at")
	rising(at+"/issues/comments?direction=desc", "created_at") // not looked at without sort
	falling(at+"/issues/comments?sort=updated&direction=desc", "updated_at")
	falling("/orgs/acme/repos", "created_at")
	rising("/user/repos", "full_name")
	since := h.all(at + "/issues?state=all&sort=updated")[5]["updated_at"].(string)
	for _, list := range []string{"/issues?state=all&since=", "/issues/comments?since="} {
		for _, o := range h.all(at + list + since) {
			if o["updated_at"].(string) < since {
				t.Errorf("%s%s: %v", list, since, o["updated_at"])
			}
		}
	}
	for _, o := range h.all(at + "/issues") {
		if o["state"] != "open" {
			t.Error("closed issues are listed unasked")
		}
	}
	h.want(422, "GET", at+"/issues?sort=nonsense", "")
	h.want(422, "GET", at+"/issues?since=yesterday", "")
}

// What changes while a list is read moves in it: by page numbers something is skipped.
func TestAListShiftsWhileItIsRead(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 600})
	path := "/repos/" + h.first() + "/issues?state=all&sort=updated&direction=asc&per_page=5"
	first := h.get(path)
	touched := first.list()[0]
	h.want(200, "PATCH", "/repos/"+h.first()+"/issues/"+text(touched["number"]), `{"title":"now at the end"}`)
	second := h.get(h.next(first))
	whole := h.all(path)
	if whole[4]["id"] == first.list()[4]["id"] || second.list()[0]["id"] == whole[4]["id"] {
		t.Error("nothing was skipped")
	}
	if whole[len(whole)-1]["id"] != touched["id"] {
		t.Error("the changed issue is not the last one")
	}
}

func TestRenamedAndTransferredRepositoriesRedirect(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	name := h.first()
	id := text(h.get("/repos/" + name).object()["id"])
	h.want(200, "PATCH", "/repos/"+name, `{"name":"renamed"}`)
	for path, want := range map[string]string{"": "", "/issues?state=all": "/issues?state=all", "/pulls/comments/7": "/pulls/comments/7"} {
		w := h.want(http.StatusMovedPermanently, "GET", "/repos/"+name+path, "")
		if got := w.header.Get("Location"); got != h.url+"/repositories/"+id+want || w.object()["message"] != "Moved Permanently" {
			t.Errorf("%s: %s %s", path, got, w.text)
		}
	}
	h.want(http.StatusTemporaryRedirect, "PATCH", "/repos/"+name, `{"description":"x"}`)
	h.get("/repositories/" + id + "/issues")
	login := h.get("/user").object()["login"].(string)
	h.want(202, "POST", "/repos/acme/renamed/transfer", `{"new_owner":"`+login+`"}`)
	h.want(http.StatusMovedPermanently, "GET", "/repos/"+name, "")
	if got := h.get("/repositories/" + id).object()["full_name"]; got != login+"/renamed" {
		t.Errorf("%v", got)
	}
	// A new one of the old name is another one.
	h.want(201, "POST", "/orgs/acme/repos", `{"name":"renamed"}`)
	if got := h.get("/repos/acme/renamed").object()["id"]; text(got) == id {
		t.Error("the new repository is the old one")
	}
	h.want(204, "DELETE", "/repos/acme/renamed", "")
	h.want(404, "GET", "/repos/acme/renamed", "")
}

func TestWhatMayNotBeSeenIsNotThere(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	name := h.first()
	id := text(h.get("/repos/" + name).object()["id"])
	h.want(200, "POST", "/_sandbox/access", `{"repository":"`+name+`","hidden":true}`)
	for _, path := range []string{"/repos/" + name, "/repos/" + name + "/issues", "/repositories/" + id} {
		h.want(404, "GET", path, "")
	}
	owner, repo, _ := strings.Cut(name, "/")
	if data, errs := h.query(`query($o:String!,$n:String!){repository(owner:$o,name:$n){id}}`, object{"o": owner, "n": repo}); data["repository"] != nil || errs[0].(object)["type"] != "NOT_FOUND" {
		t.Errorf("%v %v", data, errs)
	}
	if len(h.all("/user/repos")) != 4 || len(h.truth("repository")) != 5 {
		t.Error("it is hidden, not gone")
	}
	if !h.Show(name) || h.Show("acme/nothing") {
		t.Error("show")
	}
	h.get("/repos/" + name)
}

func TestDeletedAndTransferredIssues(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	name, other := h.first(), h.all("/user/repos")[1]["full_name"].(string)
	number := func(title string) string {
		return text(h.want(201, "POST", "/repos/"+name+"/issues", `{"title":"`+title+`"}`).object()["number"])
	}
	gone, moved := number("gone"), number("moved")
	h.want(201, "POST", "/repos/"+name+"/issues/"+moved+"/comments", `{"body":"with it"}`)
	n := func(s string) (i int) { _, _ = fmt.Sscan(s, &i); return i }
	if !h.DeleteIssue(name, n(gone)) || !h.TransferIssue(name, n(moved), other) || h.DeleteIssue(name, 99999) {
		t.Fatal("not done")
	}
	if w := h.want(410, "GET", "/repos/"+name+"/issues/"+gone, ""); w.object()["message"] != "This issue was deleted" {
		t.Errorf("%s", w.text)
	}
	w := h.want(301, "GET", "/repos/"+name+"/issues/"+moved+"/comments", "")
	if got := h.get(strings.TrimPrefix(w.header.Get("Location"), h.url)).list(); len(got) != 1 || got[0]["body"] != "with it" {
		t.Errorf("%v", got)
	}
	h.want(404, "GET", "/repos/"+name+"/issues/99999", "")
	h.want(200, "PATCH", "/repos/"+name, `{"has_issues":false}`)
	if w := h.want(410, "GET", "/repos/"+name+"/issues", ""); !strings.Contains(w.text, "disabled") {
		t.Errorf("%s", w.text)
	}
}

func TestAnEmptyRepositoryHasNoCommits(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	h.want(201, "POST", "/orgs/acme/repos", `{"name":"empty"}`)
	if w := h.want(409, "GET", "/repos/acme/empty/commits", ""); w.object()["message"] != "Git Repository is empty." {
		t.Errorf("%s", w.text)
	}
}

// A commit that was made days ago and pushed now is the first of the list, and since
// misses it.
func TestOldCommitsArePushed(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 600})
	for _, r := range h.all("/user/repos") {
		list := h.all("/repos/" + r["full_name"].(string) + "/commits")
		for i := range list[1:] {
			date := func(o object) string { return o["commit"].(object)["committer"].(object)["date"].(string) }
			if date(list[i]) < date(list[i+1]) {
				return
			}
		}
	}
	t.Error("all commits are in the order of their dates")
}

func TestChangesShowLateInListsOnly(t *testing.T) {
	t.Parallel()
	clock := sandbox.NewClock()
	h := open(t, github.Options{Unlimited: true, Clock: clock, Lateness: github.Lateness{Share: 1, Max: sandbox.Duration(time.Hour)}})
	at := "/repos/" + h.first() + "/issues"
	made := h.want(201, "POST", at, `{"title":"late"}`).object()
	listed := func() bool {
		return slices.ContainsFunc(h.all(at), func(o object) bool { return o["id"] == made["id"] })
	}
	if listed() || h.truth("issue")[text(made["id"])] == nil {
		t.Error("it shows at once, or not in the truth")
	}
	h.get(at + "/" + text(made["number"]))
	clock.Shift(time.Hour)
	if !listed() {
		t.Error("it never shows")
	}
	h.want(200, "PATCH", at+"/"+text(made["number"]), `{"title":"changed"}`)
	for _, o := range h.all(at) {
		if o["id"] == made["id"] && o["title"] != "late" {
			t.Error("the list shows the change at once")
		}
	}
	h.want(200, "POST", "/_sandbox/lateness", `{"share":0,"max":"0s"}`)
}

func TestListsGoWrongOnDemand(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	path := "/repos/" + h.first() + "/issues?state=all&per_page=5"
	whole := h.all(path)
	fault := func(kind string, n int) answer {
		h.Core().Faults().Clear()
		if err := h.Core().Faults().Add(sandbox.Fault{Kind: kind, N: n, Times: 1}); err != nil {
			t.Fatal(err)
		}
		return h.get(path)
	}
	if w := fault("list_stuck", 0); !strings.Contains(h.next(w), "page=1&") {
		t.Errorf("stuck: %s", w.header.Get("Link"))
	}
	if w := fault("list_short", 2); len(w.list()) != 3 || h.next(w) == "" {
		t.Errorf("short: %d", len(w.list()))
	}
	if w := fault("list_duplicate", 0); len(w.list()) != 6 {
		t.Errorf("duplicate: %d", len(w.list()))
	}
	before := h.Collections()
	fault("step", 3)
	if fmt.Sprint(before) == fmt.Sprint(h.Collections()) && fmt.Sprint(whole) == fmt.Sprint(h.all(path)) {
		t.Error("nothing happened")
	}
}

// The activity of a repository is paged by cursors.
func TestActivityIsPagedByCursors(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 600})
	path := "/repos/" + h.first() + "/activity?per_page="
	by3, by100 := h.all(path+"3"), h.all(path+"100")
	if len(by3) != len(by100) || len(by3) < 7 || fmt.Sprint(by3) != fmt.Sprint(by100) {
		t.Errorf("%d by three, %d by a hundred", len(by3), len(by100))
	}
}
