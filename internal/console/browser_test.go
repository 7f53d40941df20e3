package console_test

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"lockstep/internal/pgdb/pgtest"
)

//go:embed testdata/axe.min.js
var axe string

// browser is a Chromium of its own, with one tab.
type browser struct {
	t   testing.TB
	ctx context.Context

	mu   sync.Mutex
	said []string // what the console of the browser said, guarded by mu
}

// newBrowser starts one, or skips where there is none.
func newBrowser(t testing.TB) *browser {
	t.Helper()
	path := os.Getenv("LOCKSTEP_CHROMIUM")
	if path == "" {
		var err error
		if path, err = exec.LookPath("chromium"); err != nil {
			t.Skip("there is no chromium: scripts/chromium.sh installs it")
		}
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("lang", "en-US"), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute))
	ctx, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	b := &browser{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == "debug" { // advice of the browser
				continue
			}
			b.mu.Lock()
			b.said = append(b.said, fmt.Sprintf("%s (%s:%d)", m, m.URL, m.Line))
			b.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the page shows:\n%s\nand its console said:\n%s", b.shows(), strings.Join(b.console(), "\n"))
		}
		end()
		listening.Wait()
	})
	return b
}

// do runs steps within a minute.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%v\nthe page said:\n%s\nand shows:\n%s", err, strings.Join(b.console(), "\n"), b.shows())
	}
}

// eval runs a script in the page and returns its value as text.
func (b *browser) eval(script string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return out
}

// shows returns the text of the page.
func (b *browser) shows() string {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body ? document.body.innerText : ''"))
	if err != nil {
		return err.Error()
	}
	return text
}

// console returns what the browser's console said so far.
func (b *browser) console() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.said...)
}

// silent fails when the console said anything: an error of a script, a broken policy.
func (b *browser) silent(where string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.said {
		b.t.Errorf("%s: the browser's console says %s", where, m)
	}
	b.said = nil
}

// wait waits until an expression of the page is true.
func (b *browser) wait(what, expression string) {
	b.t.Helper()
	pgtest.Eventually(b.t, time.Minute, what, func() bool {
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		defer cancel()
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		return err == nil && is // on the way to another page nothing can be asked
	})
}

// open loads a page of the node and waits until its scripts ran.
func (b *browser) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
	b.wait("scripts to run", "window.lockstep && document.readyState === 'complete'")
}

// size sets the window, light or dark.
func (b *browser) size(width, height int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height), func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return chromedp.Void{}, err
	})
}

// accessible fails with what axe finds serious or worse.
func (b *browser) accessible(where string) {
	b.t.Helper()
	// The policy of the page lets no script in: the debugger does.
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Evaluate[*bool](axe+";undefined")(ctx, t)
		return chromedp.Void{}, ignoreUndefined(err)
	})
	found := b.eval(`axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.filter(v => v.impact === 'serious' || v.impact === 'critical')
		.map(v => v.id + ': ' + v.help + '\n' + v.nodes.slice(0, 5).map(n => '   ' + n.html.slice(0, 200) + ' ' + n.failureSummary.replace(/\s+/g, ' ').slice(0, 300)).join('\n')).join('\n'))`)
	if found != "" {
		b.t.Errorf("%s is not accessible:\n%s", where, found)
	}
}

func ignoreUndefined(err error) error {
	if err != nil && strings.Contains(err.Error(), "undefined") {
		return nil
	}
	return err
}

// picture keeps a screenshot of the page as a whole where LOCKSTEP_SCREENSHOTS says.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("LOCKSTEP_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	image, err := chromedp.Run(ctx, func(ctx context.Context, t *chromedp.Target) ([]byte, error) {
		r, err := cdp.Call(ctx, t, page.CaptureScreenshot, page.CaptureScreenshotParams{})
		return r.Data, err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), image, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
