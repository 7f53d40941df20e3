package outlet

import (
	"context"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"github.com/nats-io/nats-server/v2/server"

	"lockstep/internal/obs"
)

// door decides who comes in, and what they may do.
type door struct{ s *Server }

// Check implements server.Authentication.
func (d door) Check(c server.ClientAuthentication) bool {
	sent := c.GetOpts()
	token := sent.Token
	if token == "" {
		token = sent.Password
	}
	if subtle.ConstantTimeCompare([]byte(token), []byte(d.s.secret)) == 1 {
		c.RegisterUser(&server.User{Username: "lockstep"})
		return true
	}
	id, err := d.s.cfg.Authorize(token)
	if err != nil {
		return false
	}
	c.RegisterUser(&server.User{Username: "token " + id, Permissions: permissions()})
	d.s.clientsMu.Lock()
	defer d.s.clientsMu.Unlock()
	d.s.clients[c.GetID()] = id
	return true
}

// permissions are those of every client: to read.
func permissions() *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>",
			"$JS.API.CONSUMER.>", "$JS.ACK.>", "$JS.FC.>",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "lockstep.>", "$JS.EVENT.ADVISORY.CONSUMER.>"}},
	}
}

// recheck ends the connections of those who would not be let in any more.
func (s *Server) recheck(ctx context.Context) {
	s.clientsMu.Lock()
	clients := maps.Clone(s.clients)
	s.clientsMu.Unlock()
	ns := s.running()
	for number, id := range clients {
		there := ns != nil && ns.GetClient(number) != nil
		if there && s.cfg.Live(id) {
			continue
		}
		s.clientsMu.Lock()
		delete(s.clients, number)
		s.clientsMu.Unlock()
		if there {
			s.log.InfoContext(ctx, "a NATS client is cut off: its token is not valid any more", "token", id)
			_ = ns.DisconnectClientByID(number) // it has gone by itself otherwise
		}
	}
}

// serverLog passes what the server says on to slog. Its notices are about its own start
// and stop, and its errors mostly about clients, whose doing is no fault of the node.
type serverLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	last string // guarded by mu: the last error
}

// Noticef implements server.Logger, as the following do.
func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

// Debugf is for what happens to clients.
func (l *serverLog) Debugf(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

// Tracef has the protocol's messages: data.
func (l *serverLog) Tracef(string, ...any) {}

// Warnf is for what may become a fault.
func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("the NATS server warns", obs.KeyReason, fmt.Sprintf(format, v...))
}

// Errorf is for refused clients, too.
func (l *serverLog) Errorf(format string, v ...any) { l.failed(fmt.Sprintf(format, v...)) }

// Fatalf must not end the process, as the server's own logger would.
func (l *serverLog) Fatalf(format string, v ...any) { l.failed(fmt.Sprintf(format, v...)) }

func (l *serverLog) failed(text string) {
	l.mu.Lock()
	l.last = text
	l.mu.Unlock()
	l.log.Warn("the NATS server reports an error", obs.KeyError, text)
}

func (l *serverLog) lastError() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
