package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"lockstep"
	"lockstep/internal/auth"
)

// Doctor examines the node. Its methods are safe for concurrent use.
type Doctor interface {
	// Last returns what was found last, without looking; At is nil when nothing was yet.
	Last() DoctorReport
	// Examine looks now, within a minute. Examinations follow each other; whoever waited
	// for one that began meanwhile gets that one's report.
	Examine(ctx context.Context) (DoctorReport, error)
	// Fix does what a finding with Fixable asks for. A check that is not there is
	// [lockstep.ErrNotFound], one that cannot be fixed from here [lockstep.ErrConflict].
	Fix(ctx context.Context, id, target string) ([]DoctorDone, error)
}

// DoctorReport is what the checks have found.
type DoctorReport struct {
	At       *time.Time      `json:"at" doc:"When; null: the node has just started and was not examined yet"`
	OK       bool            `json:"ok" doc:"Nothing fails"`
	Counts   DoctorCounts    `json:"counts"`
	Findings []DoctorFinding `json:"findings" doc:"Targets one after the other, each one's checks always in the same order. A check may find several things"`
}

// DoctorCounts is how many findings there are of each status.
type DoctorCounts struct {
	Pass int `json:"pass"`
	Warn int `json:"warn"`
	Fail int `json:"fail"`
	Skip int `json:"skip"`
}

// DoctorFinding is what one check has found.
type DoctorFinding struct {
	ID      string `json:"id" example:"table_identity" doc:"Of the check: stable"`
	Target  string `json:"target" example:"database app"`
	Status  string `json:"status" enum:"pass,warn,fail,skip" doc:"warn: it works, and will hurt one day. skip: not checked; the summary says why"`
	Summary string `json:"summary" doc:"What was found"`
	Why     string `json:"why" doc:"Why it matters"`
	Remedy  string `json:"remedy,omitempty" doc:"SQL or commands, line by line; comments begin with -- or #"`
	Fixable bool   `json:"fixable" doc:"POST /v1/doctor/fix with its id and target does something about it"`
}

// DoctorDone is one thing that was done, or tried.
type DoctorDone struct {
	What  string `json:"what" doc:"SQL or a command"`
	Error string `json:"error,omitempty" doc:"Why it could not be done; left out: it was"`
}

// DoctorFixed is what became of a finding.
type DoctorFixed struct {
	Done   []DoctorDone `json:"done"`
	Report DoctorReport `json:"report" doc:"Of an examination after it"`
}

// DoctorFix names what is to be fixed.
type DoctorFix struct {
	ID     string `json:"id" minLength:"1" maxLength:"100" doc:"Of the finding"`
	Target string `json:"target" minLength:"1" maxLength:"300" doc:"Of the finding"`
}

type (
	doctorOutput   struct{ Body DoctorReport }
	doctorFixInput struct{ Body DoctorFix }
	doctorFixed    struct{ Body DoctorFixed }
)

func (a *API) doctorRoutes() {
	at := func(method, path, action string) Route {
		return Route{Method: method, Path: "/v1/doctor" + path, Need: auth.NeedAdmin, Audit: action, Waits: method == http.MethodPost}
	}
	typed(a, at(http.MethodGet, "", ""), about{"get-doctor", "Show what the node's last examination of itself found", "node", 200}, a.getDoctor)
	typedAudited(a, at(http.MethodPost, "", "doctor.examine"), about{"examine", "Examine the node now; takes a minute at most", "node", 200}, a.examine)
	typedAudited(a, at(http.MethodPost, "/fix", "doctor.fix"), about{"fix-finding", "Do what a finding asks for, where that is safe, and examine again", "node", 200}, a.fixFinding)
}

func (a *API) physician() (Doctor, error) {
	if a.doctor == nil {
		return nil, fmt.Errorf("this node does not examine itself: %w", lockstep.ErrUnavailable)
	}
	return a.doctor, nil
}

func (a *API) getDoctor(context.Context, *noInput) (*doctorOutput, error) {
	d, err := a.physician()
	if err != nil {
		return nil, err
	}
	return &doctorOutput{Body: d.Last()}, nil
}

func (a *API) examine(ctx context.Context, _ *noInput) (*doctorOutput, note, error) {
	d, err := a.physician()
	if err != nil {
		return nil, note{}, err
	}
	r, err := d.Examine(ctx)
	if err != nil {
		return nil, note{}, err
	}
	return &doctorOutput{Body: r}, note{target: "node", after: r.Counts}, nil
}

func (a *API) fixFinding(ctx context.Context, in *doctorFixInput) (*doctorFixed, note, error) {
	d, err := a.physician()
	if err != nil {
		return nil, note{}, err
	}
	done, err := d.Fix(ctx, in.Body.ID, in.Body.Target)
	if err != nil {
		return nil, note{}, err
	}
	// What was done is recorded and told also when nobody can look at it now.
	n := note{target: in.Body.Target, after: map[string]any{"check": in.Body.ID, "done": done}}
	r, err := d.Examine(ctx)
	if err != nil {
		r = d.Last()
	}
	return &doctorFixed{Body: DoctorFixed{Done: append([]DoctorDone{}, done...), Report: r}}, n, nil
}
