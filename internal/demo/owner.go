package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Account is a simulated account that is mirrored, as its owner knows it.
type Account struct {
	URL string // of the API; its controls are below _sandbox/
	Key string
}

// edit is a change that an account's owner made.
type edit struct {
	id   string // the record's
	mark string // what the record holds since then
	what string // for people
}

// owner changes something in an account.
type owner interface {
	// edit changes the nth thing. It returns errNothing when there was nothing to change.
	edit(ctx context.Context, n int) (edit, error)
	// mark returns what tells the edits of a record apart.
	mark(record json.RawMessage) string
}

var errNothing = errors.New("there is nothing to change")

// shop is the owner of a Stripe account: its customers move to other addresses.
type shop struct{ caller }

func (s shop) edit(ctx context.Context, n int) (edit, error) {
	var customers struct{ Data []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, "/v1/customers?limit=20", nil, &customers); err != nil {
		return edit{}, err
	}
	if len(customers.Data) == 0 {
		return edit{}, errNothing
	}
	id, email := customers.Data[n%len(customers.Data)].ID, fmt.Sprintf("moved-%d@example.com", n)
	form := url.Values{"email": {email}, "metadata[edit]": {strconv.Itoa(n)}}
	err := s.call(ctx, http.MethodPost, "/v1/customers/"+id, form, nil)
	return edit{id: id, mark: strconv.Itoa(n), what: id + " has " + email}, err
}

func (s shop) mark(record json.RawMessage) string {
	var customer struct{ Metadata struct{ Edit string } }
	_ = json.Unmarshal(record, &customer) // a record without a mark was changed by somebody else
	return customer.Metadata.Edit
}

// organization is the owner of an organization on GitHub: its pull requests get other
// titles.
type organization struct{ caller }

func (o organization) edit(ctx context.Context, n int) (edit, error) {
	var repos []struct {
		Name string `json:"full_name"`
	}
	if err := o.call(ctx, http.MethodGet, "/orgs/acme/repos?per_page=5", nil, &repos); err != nil {
		return edit{}, err
	}
	if len(repos) == 0 {
		return edit{}, errNothing
	}
	repo := repos[n%len(repos)].Name
	var pulls []struct {
		Number, ID int64
	}
	if err := o.call(ctx, http.MethodGet, "/repos/"+repo+"/pulls?state=all&per_page=20", nil, &pulls); err != nil {
		return edit{}, err
	}
	if len(pulls) == 0 {
		return edit{}, errNothing
	}
	pull, title := pulls[n/len(repos)%len(pulls)], fmt.Sprintf("Retry, take %d", n)
	err := o.call(ctx, http.MethodPatch, fmt.Sprintf("/repos/%s/pulls/%d", repo, pull.Number), map[string]string{"title": title}, nil)
	return edit{id: strconv.FormatInt(pull.ID, 10), mark: title, what: fmt.Sprintf("%s#%d is %q", repo, pull.Number, title)}, err
}

func (o organization) mark(record json.RawMessage) string {
	var pull struct{ Title string }
	_ = json.Unmarshal(record, &pull) // a record without a mark was changed by somebody else
	return pull.Title
}

// caller asks an API as the account's owner.
type caller struct {
	account Account
	http    *http.Client
}

// patience is how long a simulated API may take.
const patience = 30 * time.Second

// call sends a form, or anything else as JSON, and reads the answer into out, if there
// is one. What the API refuses for the moment, or does not have any more, is
// errNothing: the owner looks for something else.
func (c caller) call(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kind, payload := "application/json", ""
	switch b := body.(type) {
	case nil:
	case url.Values:
		kind, payload = "application/x-www-form-urlencoded", b.Encode()
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return err
		}
		payload = string(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.account.URL+path, strings.NewReader(payload))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.account.Key)
	request.Header.Set("Content-Type", kind)
	answer, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask the account: %w", err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return fmt.Errorf("ask the account: %s %s: %w", method, path, err)
	case slices.Contains([]int{http.StatusNotFound, http.StatusGone, http.StatusTooManyRequests}, answer.StatusCode):
		return errNothing
	case answer.StatusCode >= 300:
		return fmt.Errorf("ask the account: %s %s: %s: %.200s", method, path, answer.Status, data)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("read what the account answered: %s %s: %w", method, path, err)
	}
	return nil
}
