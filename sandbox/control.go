package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// control serves /_sandbox/. All bodies and answers are JSON.
func (c *Core) control(w http.ResponseWriter, r *http.Request) {
	topic, rest, _ := strings.Cut(strings.Trim(strings.TrimPrefix(r.URL.Path, "/_sandbox"), "/"), "/")
	handlers := map[string]func(http.ResponseWriter, *http.Request, string) error{
		"": c.overview, "log": c.controlLog, "summary": c.controlSummary, "faults": c.controlFaults, "clock": c.controlClock,
		"world": c.controlWorld, "reset": c.controlReset, "state": c.controlState, "limits": c.controlLimits,
	}
	if own, ok := c.config.Control[topic]; ok {
		own(w, r)
		return
	}
	handle, ok := handlers[topic]
	if !ok {
		WriteJSON(w, http.StatusNotFound, map[string]string{"error": "no such control route; GET /_sandbox/ lists them"})
		return
	}
	if err := handle(w, r, rest); err != nil {
		WriteJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
	}
}

func (c *Core) overview(w http.ResponseWriter, _ *http.Request, _ string) error {
	c.CatchUp()
	now, offset, scale := c.clock.Standing()
	own := make([]string, 0, len(c.config.Control))
	for topic := range c.config.Control {
		own = append(own, "/_sandbox/"+topic)
	}
	slices.Sort(own)
	WriteJSON(w, http.StatusOK, map[string]any{
		"own":         own,
		"api":         c.config.Name,
		"seed":        c.config.Seed,
		"clock":       map[string]any{"now": now.UTC(), "offset": Duration(offset), "scale": scale},
		"pace":        c.pace.get(),
		"collections": c.config.World.Collections(),
		"faults":      c.faults.describe(),
		"routes": []string{
			"GET /_sandbox/log?after=&limit=&status=&path=", "DELETE /_sandbox/log", "GET /_sandbox/summary",
			`GET /_sandbox/faults`, `POST /_sandbox/faults {"kind":"status","status":503,"path":"^/v1/customers$","nth":3}`, "DELETE /_sandbox/faults",
			`GET /_sandbox/clock`, `POST /_sandbox/clock {"shift":"1h"} {"set":"2026-01-01T00:00:00Z"} {"scale":60}`,
			`POST /_sandbox/world {"pace":5} {"pause":true} {"step":10}`, "POST /_sandbox/reset",
			"GET /_sandbox/state", "GET /_sandbox/state/{collection}",
			`GET /_sandbox/limits`, `POST /_sandbox/limits {"off":true} {"off":false} {"limits":[{"name":"…","rate":50,"per":"1s"}]}`,
		},
	})
	return nil
}

func (c *Core) controlLog(w http.ResponseWriter, r *http.Request, _ string) error {
	if r.Method == http.MethodDelete {
		c.log.Clear()
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	query := r.URL.Query()
	after, _ := strconv.ParseUint(query.Get("after"), 10, 64)
	status, _ := strconv.Atoi(query.Get("status"))
	limit, _ := strconv.Atoi(query.Get("limit"))
	calls := make([]Call, 0, 16)
	for _, call := range c.log.Calls(after) {
		if status != 0 && call.Status != status || !strings.HasPrefix(call.Path, query.Get("path")) {
			continue
		}
		calls = append(calls, call)
		if limit > 0 && len(calls) == limit {
			break
		}
	}
	WriteJSON(w, http.StatusOK, map[string]any{"data": calls})
	return nil
}

func (c *Core) controlSummary(w http.ResponseWriter, _ *http.Request, _ string) error {
	WriteJSON(w, http.StatusOK, c.log.Summary())
	return nil
}

func (c *Core) controlFaults(w http.ResponseWriter, r *http.Request, _ string) error {
	switch r.Method {
	case http.MethodDelete:
		c.faults.Clear()
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPost:
		var raw json.RawMessage
		if err := ReadBody(r, &raw); err != nil {
			return err
		}
		faults, err := readFaults(raw)
		if err != nil {
			return err
		}
		if err := c.faults.Add(faults...); err != nil {
			return err
		}
	}
	WriteJSON(w, http.StatusOK, map[string]any{"data": c.faults.List()})
	return nil
}

// readFaults takes one fault or a list of them.
func readFaults(raw json.RawMessage) ([]Fault, error) {
	if strings.HasPrefix(strings.TrimSpace(string(raw)), "[") {
		var faults []Fault
		err := strict(raw, &faults)
		return faults, err
	}
	var one Fault
	err := strict(raw, &one)
	return []Fault{one}, err
}

func (c *Core) controlClock(w http.ResponseWriter, r *http.Request, _ string) error {
	if r.Method == http.MethodPost {
		var ask struct {
			Set   *time.Time
			Shift *Duration
			Scale *float64
		}
		if err := ReadBody(r, &ask); err != nil {
			return err
		}
		// What was due until now happens by the old time.
		c.CatchUp()
		if ask.Scale != nil {
			c.clock.Scale(*ask.Scale)
		}
		if ask.Set != nil {
			c.clock.Set(*ask.Set)
		}
		if ask.Shift != nil {
			c.clock.Shift(time.Duration(*ask.Shift))
		}
	}
	now, offset, scale := c.clock.Standing()
	WriteJSON(w, http.StatusOK, map[string]any{"now": now.UTC(), "offset": Duration(offset), "scale": scale})
	return nil
}

func (c *Core) controlWorld(w http.ResponseWriter, r *http.Request, _ string) error {
	if r.Method == http.MethodPost {
		var ask struct {
			Pace  *float64
			Pause bool
			Step  int
		}
		if err := ReadBody(r, &ask); err != nil {
			return err
		}
		if ask.Pace != nil {
			c.Live(*ask.Pace)
		}
		if ask.Pause {
			c.Live(0)
		}
		c.Step(ask.Step)
	}
	c.CatchUp()
	WriteJSON(w, http.StatusOK, map[string]any{"pace": c.pace.get(), "collections": c.config.World.Collections()})
	return nil
}

func (c *Core) controlReset(w http.ResponseWriter, r *http.Request, _ string) error {
	if r.Method != http.MethodPost {
		return errors.New("reset: POST it")
	}
	c.pace.set(c.pace.get(), c.step)
	c.config.World.Reset()
	c.faults.Clear()
	c.log.Clear()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *Core) controlState(w http.ResponseWriter, _ *http.Request, collection string) error {
	c.CatchUp()
	if collection == "" {
		WriteJSON(w, http.StatusOK, map[string]any{"data": c.config.World.Collections()})
		return nil
	}
	records, ok := c.config.World.Records(collection)
	if !ok {
		return fmt.Errorf("state: there is no collection %q; GET /_sandbox/state lists them", collection)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriterSize(w, 64<<10)
	for _, data := range records {
		_, _ = out.Write(data)
		_ = out.WriteByte('\n')
	}
	_ = out.Flush()
	return nil
}

func (c *Core) controlLimits(w http.ResponseWriter, r *http.Request, _ string) error {
	if r.Method == http.MethodPost {
		var ask struct {
			Off    *bool
			Limits []Limit
		}
		if err := ReadBody(r, &ask); err != nil {
			return err
		}
		c.limits.Set(ask.Limits...)
		if ask.Off != nil {
			c.limits.turn(*ask.Off)
		}
	}
	limits, enforced := c.limits.Limits()
	WriteJSON(w, http.StatusOK, map[string]any{"enforced": enforced, "limits": limits})
	return nil
}

// ReadBody reads the JSON of a control request; unknown keys are errors, an empty
// body leaves what it reads into as it is.
func ReadBody(r *http.Request, into any) error {
	text, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	if len(text) == 0 {
		return nil
	}
	return strict(text, into)
}

func strict(text []byte, into any) error {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	return nil
}
