package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// account is a simulated Stripe account, whose sandbox is a process of its own.
type account struct {
	url  string
	pid  int
	http *http.Client
	stop func() error // may be called more than once
}

const (
	// The keys say in which mode an account is asked, and so what it allows.
	liveKey  = "sk_live_bench4eC39HqLyjWDarjt"
	testKey  = "sk_test_bench4eC39HqLyjWDarjt"
	ownerKey = "sk_live_owner4eC39HqLyjWDarjt"

	customerPage = 100 // customers that a list shows at once, at most
)

// account starts an account with so many customers, and waits until it answers. The
// flags are those of lockstep sandbox besides.
func (l *lab) account(ctx context.Context, customers int, flags ...string) (*account, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(l.dir, "sandbox.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Its world stands still: what happens is what the benchmark does.
	arguments := []string{"sandbox", "--api=stripe", "--customers=-1", "--pace=0", "--listen=" + address, "--bulk=" + strconv.Itoa(customers)}
	cmd := exec.Command(l.Binary, append(arguments, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	end, err := begin(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("start the sandbox: %w", err)
	}
	a := &account{url: "http://" + address, pid: cmd.Process.Pid, http: &http.Client{Timeout: time.Minute}, stop: end(os.Interrupt)}
	err = l.until(ctx, time.Minute, "the sandbox did not answer", func() (bool, error) {
		_, err := a.control(ctx, http.MethodGet, "", "")
		return err == nil, nil
	})
	if err != nil {
		return nil, errors.Join(err, a.stop())
	}
	return a, nil
}

// control asks the sandbox itself for something.
func (a *account) control(ctx context.Context, method, topic, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+"/_sandbox/"+topic, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return a.do(req)
}

func (a *account) do(req *http.Request) ([]byte, error) {
	res, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: status %d: %.300s", req.Method, req.URL.Path, res.StatusCode, body)
	}
	return body, err
}

// asked is a request in the sandbox's log.
type asked struct {
	At       time.Time
	Endpoint string
	Version  string
	Status   int
}

const listing = "GET /v1/customers"

// asked returns the requests since the log was cleared, oldest first.
func (a *account) asked(ctx context.Context) ([]asked, error) {
	text, err := a.control(ctx, http.MethodGet, "log", "")
	if err != nil {
		return nil, err
	}
	var log struct{ Data []asked }
	return log.Data, json.Unmarshal(text, &log)
}

func (a *account) forget(ctx context.Context) error {
	_, err := a.control(ctx, http.MethodDelete, "log", "")
	return err
}

// listed counts the pages of customers that were given out.
func (a *account) listed(ctx context.Context) (pages int, version string, err error) {
	all, err := a.asked(ctx)
	for _, one := range all {
		if one.Endpoint == listing && one.Status == http.StatusOK {
			pages, version = pages+1, one.Version
		}
	}
	return pages, version, err
}

// read asks for so many pages, each when the one before is there, as a mirror does,
// and drops them: what the sandbox can serve. It begins anew at the list's end.
func (a *account) read(ctx context.Context, pages int, version string) (time.Duration, error) {
	start := time.Now()
	for after := ""; pages > 0; pages-- {
		query := url.Values{"limit": {strconv.Itoa(customerPage)}}
		if after != "" {
			query.Set("starting_after", after)
		}
		req, err := a.request(ctx, http.MethodGet, "/v1/customers?"+query.Encode(), "")
		if err != nil {
			return 0, err
		}
		req.Header.Set("Stripe-Version", version)
		body, err := a.do(req)
		if err != nil {
			return 0, err
		}
		if after = ""; bytes.Contains(body[max(0, len(body)-100):], []byte(`"has_more":true`)) {
			after = lastID(body)
		}
	}
	return time.Since(start), nil
}

// lastID returns the id of the last customer of a page, found without decoding it.
func lastID(page []byte) string {
	const before = `"id":"cus_`
	i := bytes.LastIndex(page, []byte(before))
	if i < 0 {
		return ""
	}
	id, _, _ := bytes.Cut(page[i+len(`"id":"`):], []byte(`"`))
	return string(id)
}

func (a *account) request(ctx context.Context, method, path, body string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+ownerKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, nil
}

// mark writes a number into the metadata of a customer, as the account's owner does; a
// new one for the id "". It returns the id.
func (a *account) mark(ctx context.Context, id string, number int) (string, error) {
	path := "/v1/customers"
	if id != "" {
		path += "/" + id
	}
	req, err := a.request(ctx, http.MethodPost, path, url.Values{"metadata[bench]": {strconv.Itoa(number)}}.Encode())
	if err != nil {
		return "", err
	}
	body, err := a.do(req)
	if err != nil {
		return "", err
	}
	var customer struct{ ID string }
	return customer.ID, json.Unmarshal(body, &customer)
}
