package console

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

// setupPages registers the doctor's findings, and the audit.
func (s *Console) setupPages() {
	s.page("setup", "setup", setupPage)
	s.action("setup/examine", examine)
	s.action("setup/fix", fixFinding)
	s.page("audit", "audit", auditPage)
}

type setupView struct {
	frame
	Report  client.Examination
	Targets []target
	Reason  string // why there is nothing to see
}

// target is what was examined, with what was found about it.
type target struct {
	Name    string
	Fail    int
	Warn    int
	Trouble []client.Finding // what fails and what warns
	Fine    []client.Finding // what is as it should be, and what was not checked
}

func setupPage(c *visit) (framed, error) {
	v := &setupView{frame: frame{Title: "Setup", Nav: "setup", Live: Prefix + "setup", Every: "15s"}}
	report, err := c.api.Doctor(c.ctx)
	if statusOf(err) == http.StatusForbidden {
		v.Live, v.Reason = "", "What the node finds about itself is for those with the scope admin: sign in with such a token to read it."
		return v, nil
	}
	if errors.Is(err, lockstep.ErrUnavailable) {
		v.Reason = words(err)
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	v.Report = report
	v.group()
	return v, nil
}

// group puts findings to their targets: failures first, then warnings.
func (v *setupView) group() {
	at := map[string]int{}
	for _, status := range []string{"fail", "warn", "pass", "skip"} {
		for _, f := range v.Report.Findings {
			if f.Status != status {
				continue
			}
			i, known := at[f.Target]
			if !known {
				i, at[f.Target] = len(v.Targets), len(v.Targets)
				v.Targets = append(v.Targets, target{Name: f.Target})
			}
			v.Targets[i].add(f)
		}
	}
}

func (t *target) add(f client.Finding) {
	switch f.Status {
	case "fail":
		t.Fail++
	case "warn":
		t.Warn++
	default:
		t.Fine = append(t.Fine, f)
		return
	}
	t.Trouble = append(t.Trouble, f)
}

// examinationTime is the most that an examination takes, with what is fixed before it.
const examinationTime = 5 * time.Minute

func (c *visit) takesLong() {
	// Writers without deadlines have none to set.
	_ = http.NewResponseController(c.w).SetWriteDeadline(c.now().Add(examinationTime))
}

func examine(c *visit) (string, error) {
	c.takesLong()
	report, err := c.api.Examine(c.ctx)
	if err != nil {
		return "", err
	}
	n := report.Counts
	if n.Fail+n.Warn == 0 {
		return fmt.Sprintf("Examined: all %d checks pass.", n.Pass), nil
	}
	return fmt.Sprintf("Examined: %s, %s.", plural(n.Fail, "check fails", "checks fail"), plural(n.Warn, "check warns", "checks warn")), nil
}

// fixFinding does what a finding asks for.
func fixFinding(c *visit) (string, error) {
	c.takesLong()
	fixed, err := c.api.Fix(c.ctx, c.r.PostFormValue("id"), c.r.PostFormValue("target"))
	if err != nil {
		return "", err
	}
	var done, failed []string
	for _, one := range fixed.Done {
		if one.Error != "" {
			failed = append(failed, one.What+": "+one.Error)
			continue
		}
		done = append(done, one.What)
	}
	if len(failed) > 0 {
		return "", fmt.Errorf("this could not be done: %s", strings.Join(failed, "; "))
	}
	return "Done: " + strings.Join(done, "; "), nil
}
