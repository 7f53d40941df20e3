package wal

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"lockstep"
	"lockstep/internal/pgdb"
)

const (
	connectTimeout = 15 * time.Second
	// queryTimeout bounds each look into the catalog: the connection may be dead
	// without anybody having said so.
	queryTimeout = 15 * time.Second
)

// wire is a connection that speaks the replication protocol.
type wire struct {
	pg            *pgconn.PgConn // until replication starts; then the socket is ours
	conn          net.Conn
	reader        *boundedReader
	systemID      uint64
	timeline      uint32
	pid           uint32
	senderTimeout time.Duration // 0: the server waits for ever
}

// dial opens a replication connection and asks who the server is.
func dial(ctx context.Context, url, applicationName string) (*wire, error) {
	w := &wire{}
	config, err := w.config(url, applicationName)
	if err != nil {
		return nil, err
	}
	connecting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if w.pg, err = pgconn.ConnectConfig(connecting, config); err != nil {
		return nil, explain("connect for replication to "+pgdb.Redact(url), err)
	}
	w.conn, w.pid = w.pg.Conn(), w.pg.PID()
	if err := w.identify(connecting); err != nil {
		w.abandon()
		return nil, err
	}
	return w, nil
}

func (w *wire) config(url, applicationName string) (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		// The driver's message quotes the URL, at times with the password.
		return nil, fmt.Errorf("the database URL %s is not valid: expected postgres://user:password@host:port/database: %w", pgdb.Redact(url), lockstep.ErrInvalid)
	}
	for name := range config.RuntimeParams {
		// Options of the pool that may stand in the URL; no server knows them.
		if strings.HasPrefix(name, "pool_") {
			delete(config.RuntimeParams, name)
		}
	}
	// What the text of values depends on must not depend on the role's or the
	// database's settings: Postgres' own subscriber pins the same.
	maps.Copy(config.RuntimeParams, map[string]string{
		"replication":        "database",
		"application_name":   applicationName,
		"client_encoding":    "UTF8",
		"DateStyle":          "ISO",
		"IntervalStyle":      "postgres",
		"TimeZone":           "UTC",
		"extra_float_digits": "3",
		"bytea_output":       "hex",
		"statement_timeout":  "0",
		"search_path":        "pg_catalog", // regclass and its like name what lies elsewhere with the schema
	})
	config.DialFunc = dialer().DialContext
	config.BuildFrontend = func(r io.Reader, out io.Writer) *pgproto3.Frontend {
		// A refused attempt (another host, no TLS) is followed by another: the
		// last reader is the one of the connection that stands.
		w.reader = &boundedReader{src: r}
		return pgproto3.NewFrontend(w.reader, out)
	}
	return config, nil
}

// dialer makes connections whose dead other end the kernel notices within half a
// minute, both when nothing is sent (keepalive) and when what was sent is not
// acknowledged.
func dialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         limitUnacknowledged,
	}
}

// identify reads the server's identity and what this session needs to know.
func (w *wire) identify(ctx context.Context) error {
	row, err := w.row(ctx, "IDENTIFY_SYSTEM")
	if err != nil {
		return explain("ask the server for its identity", err)
	}
	if len(row) < 2 {
		return fmt.Errorf("the server's answer to IDENTIFY_SYSTEM has %d columns", len(row))
	}
	timeline, err := strconv.ParseUint(row[1], 10, 32)
	if err != nil {
		return fmt.Errorf("the server's timeline is %q: %w", row[1], err)
	}
	w.timeline = uint32(timeline)
	if w.systemID, err = strconv.ParseUint(row[0], 10, 64); err != nil {
		return fmt.Errorf("the server's system identifier is %q: %w", row[0], err)
	}
	row, err = w.row(ctx, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'")
	if err != nil {
		return explain("read wal_sender_timeout", err)
	}
	ms, err := strconv.ParseInt(row[0], 10, 64)
	if err != nil {
		return fmt.Errorf("wal_sender_timeout is %q: %w", row[0], err)
	}
	w.senderTimeout = time.Duration(ms) * time.Millisecond
	return w.unchecked(ctx)
}

// unchecked asks for values as they are where the database does not know what their
// bytes mean. The walsender would check that they are UTF-8, and end with the first
// that is not, again and again.
func (w *wire) unchecked(ctx context.Context) error {
	const raw = "SQL_ASCII"
	if w.pg.ParameterStatus("server_encoding") != raw {
		return nil
	}
	if _, err := w.pg.Exec(ctx, "SET client_encoding = '"+raw+"'").ReadAll(); err != nil {
		return explain("ask for bytes as they are", err)
	}
	return nil
}

// row returns the one row of a command's answer.
func (w *wire) row(ctx context.Context, sql string) ([]string, error) {
	results, err := w.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, fmt.Errorf("%s gave no single row", sql)
	}
	row := make([]string, len(results[0].Rows[0]))
	for i, v := range results[0].Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// start begins replication and takes the socket over from the driver.
func (w *wire) start(ctx context.Context, slot string, publications []string, from lockstep.LSN) error {
	names := make([]string, len(publications))
	for i, p := range publications {
		names[i] = pgdb.QuoteIdent(p)
	}
	sql := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (proto_version '1', publication_names %s, messages 'true')",
		pgdb.QuoteIdent(slot), from, quoteOption(strings.Join(names, ",")))
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	w.pg.Frontend().SendQuery(&pgproto3.Query{String: sql})
	if err := w.pg.Frontend().Flush(); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	for {
		msg, err := w.pg.ReceiveMessage(ctx)
		if err != nil {
			return explain("start replication from slot "+slot, err)
		}
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			return explain("start replication from slot "+slot, pgconn.ErrorResponseToPgError(msg))
		case *pgproto3.CopyBothResponse:
			// From here on the socket is ours. The reader stays the driver's lowest
			// one, which would hand out what a slow write made it read ahead.
			w.reader.free = true
			_, err := w.pg.Hijack()
			return err
		}
	}
}

// quoteOption quotes a value of a replication command, whose grammar knows quotes
// in quotes and nothing else.
func quoteOption(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// abandon closes the connection without ceremony.
func (w *wire) abandon() { _ = w.conn.Close() }
