package doctor

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"lockstep/internal/config"
)

// These are what no server of this machine says: columns and settings of newer
// versions, servers that are too old, file systems that cannot be mounted here.

func judged(t *testing.T, v verdict, status Status, says string) {
	t.Helper()
	if v.status != status || !strings.Contains(v.summary+"\n"+v.remedy, says) {
		t.Errorf("%s: %s\n%s\nwant %s and %q", v.status, v.summary, v.remedy, status, says)
	}
	if (status == Warn || status == Fail) && v.remedy == "" {
		t.Errorf("%s: no remedy", v.summary)
	}
}

func TestVersionsThatAreNotSupported(t *testing.T) {
	t.Parallel()
	for version, status := range map[int]Status{130023: Fail, 140000: Pass, 180004: Pass, 190000: Warn} {
		v, err := (&database{who: identity{version: version}}).version(t.Context())
		if err != nil || v[0].status != status {
			t.Errorf("%d: %v, %v", version, v, err)
		}
	}
}

func TestSlotsOfNewerServers(t *testing.T) {
	t.Parallel()
	db := &database{limits: defaultLimits(), Database: config.Database{Name: "app", Slot: "s"}}
	yes, no := true, false
	judged(t, db.judgeWAL(slot{walStatus: "reserved", conflicting: "true"}), Fail, "conflicting with recovery")
	judged(t, db.judgeWAL(slot{walStatus: "lost", invalidation: "idle_timeout"}), Fail, "invalidated: idle_timeout")
	judged(t, db.judgeWAL(slot{walStatus: "reserved", conflicting: "false"}), Pass, "")
	judged(t, db.judgeFailover(slot{failover: &no, synced: &no}, 2), Warn, "FAILOVER true")
	judged(t, db.judgeFailover(slot{failover: &yes, synced: &no}, 2), Pass, "follows a failover")
	judged(t, db.judgeFailover(slot{failover: &yes, synced: &yes}, 0), Fail, "copy of a primary's")
	judged(t, db.judgeFailover(slot{}, 0), Pass, "")
	day, never := int64(86400), int64(0)
	judged(t, judgeIdle(&day), Warn, "idle_replication_slot_timeout is 24h0m0s")
	judged(t, judgeIdle(&never), Pass, "")
	judged(t, judgeIdle(nil), Pass, "")
}

func TestFileSystems(t *testing.T) {
	t.Parallel()
	judged(t, judgeFileSystem("/x", 0x6969), Warn, "network")
	judged(t, judgeFileSystem("/x", 0x794c7630), Warn, "container")
	judged(t, judgeFileSystem("/x", 0xef53), Pass, "local")
}

func TestABadCheckDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	o := Options{Config: config.Default()}.withDefaults()
	l := defaultLimits()
	l.check, l.grace = 50*time.Millisecond, 20*time.Millisecond
	o.limits = l
	stuck := make(chan struct{})
	defer close(stuck)
	good := func(context.Context) ([]verdict, error) { return one(pass("good")) }
	r := o.run(t.Context(), []group{{target: "t", checks: []check{
		{id: "panics", run: func(context.Context) ([]verdict, error) { panic("oh") }},
		{id: "errs", run: func(context.Context) ([]verdict, error) { return nil, errors.New("no") }},
		{id: "waits", run: func(ctx context.Context) ([]verdict, error) { <-ctx.Done(); return nil, ctx.Err() }},
		{id: "hangs", run: func(context.Context) ([]verdict, error) { <-stuck; return nil, nil }},
		{id: "good", run: good},
		{id: "needed", needed: true, run: func(context.Context) ([]verdict, error) { return nil, errors.New("no") }},
		{id: "behind", run: good},
	}}, {target: "u", checks: []check{{id: "other", run: good}}}})
	var got []string
	for _, f := range r.Findings {
		got = append(got, f.ID+" "+string(f.Status)+": "+f.Summary)
	}
	want := []string{
		"panics warn: could not be checked: the check itself is broken: oh",
		"errs warn: could not be checked: no",
		"waits warn: could not be checked: no answer within 50ms",
		"hangs warn: could not be checked: it did not come back within 50ms",
		"good pass: good",
		"needed fail: could not be checked: no",
		"behind skip: not checked, because the check needed did not pass",
		"other pass: good",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
}

func TestAllChecksTogetherEnd(t *testing.T) {
	t.Parallel()
	o := Options{Config: config.Default(), Timeout: 100 * time.Millisecond}.withDefaults()
	var checks []check
	for range 100 {
		checks = append(checks, check{id: "slow", run: func(ctx context.Context) ([]verdict, error) { <-ctx.Done(); return nil, ctx.Err() }})
	}
	began := time.Now()
	r := o.run(t.Context(), []group{{target: "t", checks: checks}})
	if took := time.Since(began); took > 5*time.Second || len(r.Findings) != 100 {
		t.Errorf("%d findings in %s", len(r.Findings), took)
	}
}

func TestSecretsAreTakenOutOfEverything(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.Databases[0].URL = "postgres://app:p%40ssw0rd@h/app"
	c.Tokens = []config.Token{{Name: "a", Token: "tok-1234"}}
	c.Stream.URL = "nats://us3r:n4tspass@a:4222,nats://t0ken-only@b:4222"
	c.Key = "0123456789abcdefghijklmnopqrstuv"
	hide := Options{Config: c}.hider()
	got := hide("p@ssw0rd tok-1234 n4tspass t0ken-only 0123456789abcdefghijklmnopqrstuv us3r")
	if got != "xxxxx xxxxx xxxxx xxxxx xxxxx us3r" {
		t.Error(got)
	}
	// A password that is the role's name hides nothing, and would hide the name.
	c.Databases[0].URL = "postgres://app:app@h/app"
	if got := (Options{Config: c}).hider()("role app"); got != "role app" {
		t.Error(got)
	}
}

func TestWhatWarnsOrFailsIsLogged(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, nil))
	r := Report{Findings: []Finding{
		{ID: "a", Target: "t", Status: Pass, Summary: "fine"},
		{ID: "b", Target: "t", Status: Warn, Summary: "hm", Why: "y", Remedy: "do"},
		{ID: "c", Target: "t", Status: Fail, Summary: "no"},
		{ID: "d", Target: "t", Status: Skip, Summary: "later"},
	}}
	r.Log(t.Context(), log)
	got := b.String()
	if strings.Count(got, "\n") != 2 || !strings.Contains(got, `level=WARN msg="doctor: hm" check=b target=t reason=y remedy=do`) || !strings.Contains(got, `level=ERROR msg="doctor: no"`) {
		t.Error(got)
	}
}
