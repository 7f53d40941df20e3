package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"lockstep"
)

// RunningURL returns the connection string of a database of the cluster in dir that
// another process runs now; see [Cluster.URL]. An error wraps lockstep.ErrUnavailable
// when nobody seems to.
func RunningURL(dir, database string) (string, error) {
	lay, err := newLayout(dir)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(lay.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no Postgres runs in %s: %w", dir, lockstep.ErrUnavailable)
	}
	if err != nil {
		return "", fmt.Errorf("find the Postgres that runs in %s: %w; be the user whose it is, or root: %w", dir, err, lockstep.ErrEnvironment)
	}
	// The process, the data directory, when it began, the port, the directory of sockets.
	lines := strings.Split(string(text), "\n")
	if len(lines) < 5 || lines[3] == "" || lines[4] == "" {
		return "", fmt.Errorf("the Postgres in %s is about to start: try again: %w", dir, lockstep.ErrUnavailable)
	}
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database}
	u.RawQuery = url.Values{"host": {lines[4]}, "port": {lines[3]}}.Encode()
	return u.String(), nil
}
