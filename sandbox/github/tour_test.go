package github_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lockstep/sandbox/github"
)

// TestGitHubsOwnClientTakesTheTour runs testdata/tour.mjs. GITHUB_SDK names a folder in
// which `npm install octokit@5.0.5` was run.
func TestGitHubsOwnClientTakesTheTour(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node: the tour needs it")
	}
	sdk := os.Getenv("GITHUB_SDK")
	if _, err := os.Stat(filepath.Join(sdk, "node_modules", "octokit")); sdk == "" || err != nil {
		t.Skip("there is no octokit for node: npm install octokit@5.0.5 somewhere, and set GITHUB_SDK to that folder")
	}
	h := open(t, github.Options{Unlimited: true})
	out, err := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "tour.mjs"), h.url).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
