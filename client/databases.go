package client

import (
	"context"
	"net/http"
	"net/url"
)

// DatabaseDefinition is what a database is asked to be. What is left zero is the server's
// default. Name and URL are needed.
type DatabaseDefinition struct {
	Name        string   `json:"name"`
	URL         string   `json:"url"`               // postgres://user:password@host:5432/database; servers never show it
	Capture     string   `json:"capture,omitempty"` // wal or none
	Slot        string   `json:"slot,omitempty"`
	Publication string   `json:"publication,omitempty"`
	Tables      []string `json:"tables,omitempty"`     // patterns, such as public.*
	Int8        string   `json:"int8,omitempty"`       // number or string
	RetainWAL   string   `json:"retain_wal,omitempty"` // such as 50GB

	// Unchecked has it stored without connecting to it first.
	Unchecked bool `json:"-"`
}

// DatabaseRemoval is what became of a deleted database.
type DatabaseRemoval struct {
	Name    string   `json:"name"`
	Dropped []string `json:"dropped"` // in the database
	Left    []string `json:"left"`    // what is still there, why, and how to drop it
}

// SlotFate says what becomes of the slot and the publications of a deleted database.
type SlotFate int

// What becomes of them.
const (
	DropSlot SlotFate = iota // those that the server has made
	KeepSlot                 // nobody connects to the database; the slot keeps write-ahead log
)

// CreateDatabase has another database captured, until it is deleted. What the server finds
// wrong with it is a [*Problem] whose errors name the check and the remedy.
func (c *Client) CreateDatabase(ctx context.Context, d DatabaseDefinition) (Database, error) {
	query := url.Values{}
	if d.Unchecked {
		query.Set("check", "false")
	}
	var out Database
	err := c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "databases"}, query: query, body: d}, &out)
	return out, err
}

// UpdateDatabase gives a database that was made by API other patterns of tables; none:
// everything but system schemas.
func (c *Client) UpdateDatabase(ctx context.Context, name string, tables []string) (Database, error) {
	var out Database
	body := map[string][]string{"tables": append([]string{}, tables...)}
	err := c.do(ctx, call{method: http.MethodPatch, path: []string{"v1", "databases", name}, body: body, retry: repeatable}, &out)
	return out, err
}

// DeleteDatabase ends the capture of a database that was made by API. One that consumers or
// syncs name gives an error that wraps lockstep.ErrConflict, and stays.
func (c *Client) DeleteDatabase(ctx context.Context, name string, slot SlotFate) (DatabaseRemoval, error) {
	query := url.Values{}
	if slot == KeepSlot {
		query.Set("keep_slot", "true")
	}
	var out DatabaseRemoval
	err := c.do(ctx, call{method: http.MethodDelete, path: []string{"v1", "databases", name}, query: query}, &out)
	return out, err
}
