package api_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/pull"
	"lockstep/internal/pull/verify"
	"lockstep/internal/syncs"
)

// memSyncs mirrors nothing: it keeps definitions, and answers as it is told.
type memSyncs struct {
	mu      sync.Mutex
	all     []syncs.View                                            // guarded by mu
	entries []syncs.Entry                                           // guarded by mu, newest first
	asked   []string                                                // guarded by mu: what was asked of syncs
	found   verify.Result                                           // guarded by mu: what Verify finds
	fails   error                                                   // guarded by mu: of Wait, Verify and Receive
	holds   chan struct{}                                           // guarded by mu: Wait and Verify go on when it is closed; nil: at once
	entered chan struct{}                                           // guarded by mu: gets one when Wait or Verify holds
	left    chan struct{}                                           // guarded by mu: gets one when a caller has gone meanwhile
	refuse  func(d syncs.Definition) error                          // guarded by mu: of Create and Update; nil: none
	hook    func(ref string, header http.Header, body []byte) error // guarded by mu: takes webhooks
}

func (m *memSyncs) at(ref string) (int, error) {
	i := slices.IndexFunc(m.all, func(v syncs.View) bool { return v.Definition.ID == ref || v.Definition.Name == ref })
	if i < 0 {
		return i, fmt.Errorf("sync %q: %w", ref, lockstep.ErrNotFound)
	}
	return i, nil
}

func (m *memSyncs) List(context.Context) ([]syncs.View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all), nil
}

func (m *memSyncs) Get(_ context.Context, ref string) (syncs.View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.at(ref)
	if err != nil {
		return syncs.View{}, err
	}
	return m.all[i], nil
}

func (m *memSyncs) Create(_ context.Context, d syncs.Definition) (syncs.View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := 1; d.Name == ""; n++ {
		name := d.Provider
		if n > 1 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		if _, err := m.at(name); err != nil {
			d.Name = name
		}
	}
	if _, err := m.at(d.Name); err == nil {
		return syncs.View{}, fmt.Errorf("there is a sync %q already: %w", d.Name, lockstep.ErrConflict)
	}
	if m.refuse != nil {
		if err := m.refuse(d); err != nil {
			return syncs.View{}, err
		}
	}
	if d.ManagedBy != "apply" {
		d.ManagedBy = "api"
	}
	d.ID, d.CreatedAt = uuid.NewString(), time.Now()
	d.UpdatedAt = d.CreatedAt
	if d.Database == "" {
		d.Database = "app"
	}
	if d.Schema == "" {
		d.Schema = d.Provider
	}
	v := syncs.View{Definition: d, Status: pull.Status{State: pull.Starting}}
	m.all = append(m.all, v)
	return v, nil
}

func (m *memSyncs) Update(_ context.Context, ref string, change func(*syncs.Definition) error) (syncs.View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.at(ref)
	if err != nil {
		return syncs.View{}, err
	}
	d := m.all[i].Definition
	if d.ManagedBy == "file" {
		return syncs.View{}, fmt.Errorf("sync %q is defined in the configuration: %w", d.Name, lockstep.ErrConflict)
	}
	if err := change(&d); err != nil {
		return syncs.View{}, err
	}
	if m.refuse != nil {
		if err := m.refuse(d); err != nil {
			return syncs.View{}, err
		}
	}
	m.all[i].Definition = d
	return m.all[i], nil
}

func (m *memSyncs) Delete(_ context.Context, ref string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.at(ref)
	if err == nil {
		m.all = slices.Delete(m.all, i, i+1)
	}
	return err
}

// ask notes what is asked of a sync.
func (m *memSyncs) ask(ref, what string, change func(*syncs.View)) (syncs.View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.at(ref)
	if err != nil {
		return syncs.View{}, err
	}
	m.asked = append(m.asked, what)
	change(&m.all[i])
	return m.all[i], nil
}

func (m *memSyncs) Run(_ context.Context, ref string) (syncs.View, error) {
	return m.ask(ref, "run", func(*syncs.View) {})
}

func (m *memSyncs) Pause(_ context.Context, ref string) (syncs.View, error) {
	return m.ask(ref, "pause", func(v *syncs.View) { v.Definition.Paused, v.Status.State = true, pull.Paused })
}

func (m *memSyncs) Resume(_ context.Context, ref string) (syncs.View, error) {
	return m.ask(ref, "resume", func(v *syncs.View) { v.Definition.Paused, v.Status.State = false, pull.Polling })
}

func (m *memSyncs) Resync(_ context.Context, ref string, collections []string) (syncs.View, error) {
	if slices.Contains(collections, "stripe:nothing") {
		return syncs.View{}, fmt.Errorf("there is no collection stripe:nothing: %w", lockstep.ErrInvalid)
	}
	return m.ask(ref, fmt.Sprintf("resync %v", collections), func(v *syncs.View) { v.Status.State = pull.Backfilling })
}

// hold waits as it was told to.
func (m *memSyncs) hold(ctx context.Context) error {
	m.mu.Lock()
	holds, entered, left, fails := m.holds, m.entered, m.left, m.fails
	m.mu.Unlock()
	if holds == nil {
		return fails
	}
	select {
	case entered <- struct{}{}:
	default:
	}
	select {
	case <-holds:
		return fails
	case <-ctx.Done():
		select {
		case left <- struct{}{}:
		default:
		}
		return fmt.Errorf("wait: %w", ctx.Err())
	}
}

func (m *memSyncs) Wait(ctx context.Context, ref, consumer string) error {
	if _, err := m.ask(ref, "wait "+consumer, func(*syncs.View) {}); err != nil {
		return err
	}
	return m.hold(ctx)
}

func (m *memSyncs) Verify(ctx context.Context, ref string, o syncs.VerifyOptions) (verify.Result, error) {
	if _, err := m.ask(ref, fmt.Sprintf("verify %v %v", o.Collections, o.Repair), func(*syncs.View) {}); err != nil {
		return verify.Result{}, err
	}
	if err := m.hold(ctx); err != nil {
		return verify.Result{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.found, nil
}

func (m *memSyncs) Log(_ context.Context, ref string, before int64, limit int) ([]syncs.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.at(ref); err != nil {
		return nil, err
	}
	var out []syncs.Entry
	for _, e := range m.entries {
		if (before == 0 || e.ID < before) && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, nil
}

func (m *memSyncs) Receive(_ context.Context, ref string, header http.Header, body []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.at(ref); err != nil {
		return err
	}
	if m.hook == nil {
		return fmt.Errorf("webhook of stripe: no signature: %w", lockstep.ErrInvalid)
	}
	return m.hook(ref, header, body)
}

// made makes a sync of the configuration's form.
func (m *memSyncs) made(t testing.TB, name string) syncs.View {
	t.Helper()
	v, err := m.Create(t.Context(), syncs.Definition{
		Name: name, Provider: "stripe", Credential: syncs.Credential{Kind: "stripe_key", Properties: map[string]string{"secret": "sk_live_hunter2", "webhook_secret": "whsec_hunter2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// tell changes how a sync is.
func (m *memSyncs) tell(ref string, change func(*syncs.View)) {
	_, _ = m.ask(ref, "told", change)
}

func (m *memSyncs) last() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[len(m.asked)-1]
}
