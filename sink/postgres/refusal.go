package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep/sink"
)

// refusal makes an error. What Postgres says is not repeated: it may quote a value.
func (p *pool) refusal(kind sink.Kind, text string, cause error) *sink.Error {
	return &sink.Error{Kind: kind, Message: "postgres " + p.name + ": " + text, Err: cause}
}

// errSplit marks refusals that concern one of several rows.
var errSplit = errors.New("one of the rows")

// errStale marks refusals that the target's being another than it was may explain.
var errStale = errors.New("the table may have changed")

// errElsewhere marks refusals that another connection may not meet.
var errElsewhere = errors.New("the connection leads to another server than it did")

// judgeConnect makes an error of a failed connect.
func (p *pool) judgeConnect(ctx context.Context, err error) *sink.Error {
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return p.judge(ctx, err, "connect")
	}
	if ctx.Err() != nil {
		return p.refusal(sink.Retry, "no connection in time", context.Cause(ctx))
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var certificate *tls.CertificateVerificationError
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &certificate):
		return p.refusal(sink.Refused, "its certificate cannot be verified: set sslrootcert and sslmode in the URL", nil)
	case strings.Contains(err.Error(), "server refused TLS"):
		return p.refusal(sink.Refused, "it does not speak TLS, and the URL's sslmode asks for it", nil)
	case errors.As(err, &dns):
		return p.refusal(sink.Retry, "its name cannot be resolved", nil)
	case errors.As(err, &errno):
		return p.refusal(sink.Retry, "no connection: "+errno.Error(), nil)
	case pgconn.Timeout(err):
		return p.refusal(sink.Retry, "no connection within "+p.config.ConnectTimeout.String(), nil)
	}
	return p.refusal(sink.Retry, "no connection", nil)
}

// judge makes an error of a failed statement; what says what was being done.
func (p *pool) judge(ctx context.Context, err error, what string) *sink.Error {
	var from *pgconn.PgError
	if !errors.As(err, &from) {
		if ctx.Err() != nil {
			return p.refusal(sink.Retry, what+": interrupted", context.Cause(ctx))
		}
		return p.refusal(sink.Retry, what+": the connection broke", nil)
	}
	kind, means, mark := meaning(from)
	text := what + ": " + means
	if from.ConstraintName != "" {
		text += ", constraint " + quote(from.ConstraintName)
	}
	if from.ColumnName != "" {
		text += ", column " + quote(from.ColumnName)
	}
	return p.refusal(kind, text+" (SQLSTATE "+from.Code+")", mark)
}

// meaning says what a SQLSTATE is about: the row, everything, or this moment.
// README.md has the table.
func meaning(e *pgconn.PgError) (kind sink.Kind, means string, mark error) {
	switch e.Code {
	case "21000":
		return sink.Rejected, "two keys are one to Postgres", errSplit
	case "23502":
		return sink.Rejected, "a value is missing", errSplit
	case "23503":
		return sink.Rejected, "the row that it refers to is not there, or is still referred to", errSplit
	case "23505", "23P01":
		return sink.Rejected, "another row has the same value", errSplit
	case "23514":
		return sink.Rejected, "a check failed", errSplit
	case "25006":
		return sink.Retry, "the server is read-only: it is a standby, or a failover is under way", errElsewhere
	case "3D000":
		return sink.Refused, "the database does not exist", nil
	case "42501":
		return sink.Refused, "the role lacks a permission: GRANT SELECT, INSERT, UPDATE, DELETE on the target and the side table", nil
	case "42P01", "42703", "42P10", "42704", "3F000":
		return sink.Refused, "the target is not as it was", errStale
	case "57014":
		return sink.Retry, "a time-out of the server", nil
	case "26000", "42P05":
		return sink.Retry, "prepared statements are lost on the way: a connection pooler must keep them", errElsewhere
	}
	switch e.Code[:2] {
	case "22":
		return sink.Rejected, "a value does not fit its column", errSplit
	case "23", "44", "P0", "54":
		return sink.Rejected, "the row is refused", errSplit
	case "28":
		return sink.Refused, "it does not let us in: check the user and the password", nil
	case "42", "0A":
		return sink.Refused, "the statement is refused", errStale
	}
	return sink.Retry, "it cannot take it now", nil
}
