package stripe_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lockstep/sandbox/stripe"
)

// TestStripesOwnClientTakesTheTour runs testdata/tour.mjs. STRIPE_SDK names a folder in
// which `npm install stripe@23.1.0` was run.
func TestStripesOwnClientTakesTheTour(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node: the tour needs it")
	}
	sdk := os.Getenv("STRIPE_SDK")
	if _, err := os.Stat(filepath.Join(sdk, "node_modules", "stripe")); sdk == "" || err != nil {
		t.Skip("there is no stripe for node: npm install stripe@23.1.0 somewhere, and set STRIPE_SDK to that folder")
	}
	a := open(t, stripe.Options{Customers: 60, Unlimited: true})
	out, err := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "tour.mjs"), a.url).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
