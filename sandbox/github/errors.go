package github

import (
	"net/http"
	"strconv"

	"lockstep/sandbox"
)

// Error is an error as GitHub words it.
type Error struct {
	Status   int
	Message  string
	URL      string // documentation; "": that of the route or of REST
	Kind     string // GraphQL: its type
	Location string // of a redirect
	Fields   []doc  // what is wrong with which field: 422
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

const docs = "https://docs.github.com/rest"

// body is the error as JSON.
func (e *Error) body() []byte {
	url := e.URL
	if url == "" {
		url = docs
	}
	d := doc{"message": e.Message, "documentation_url": url}
	switch {
	case e.Location != "":
		d["url"] = e.Location
	case e.Status != http.StatusNotModified:
		d["status"] = strconv.Itoa(e.Status)
	}
	if e.Fields != nil {
		d["errors"] = e.Fields
	}
	return sandbox.Encode(d)
}

func notFound() *Error { return &Error{Status: http.StatusNotFound, Message: "Not Found"} }

func forbidden(message string) *Error {
	return &Error{Status: http.StatusForbidden, Message: message}
}

// invalid is the error for a field of a request's body. The codes are GitHub's: missing,
// missing_field, invalid, already_exists, custom (then message tells).
func invalid(resource, field, code, message string) *Error {
	d := doc{"resource": resource, "field": field, "code": code}
	if message != "" {
		d["message"] = message
	}
	return &Error{Status: http.StatusUnprocessableEntity, Message: "Validation Failed", Fields: []doc{d}}
}

// refuse is Core's way to an error that only a status is known of.
func refuse(status int) (contentType string, body []byte) {
	e := &Error{Status: status, Message: http.StatusText(status)}
	switch status {
	case http.StatusUnauthorized:
		e.Message = badCredentials
	case http.StatusForbidden:
		e.Message = "Resource not accessible by personal access token"
	case http.StatusTooManyRequests:
		e.Message = secondaryMessage
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Message = "We couldn't respond to your request in time. Sorry about that. Please try resubmitting your request and contact us if the problem persists."
	case http.StatusInternalServerError:
		e.Message = "Server Error"
	case http.StatusUnavailableForLegalReasons:
		e.Message = "Repository access blocked"
	}
	return jsonType, e.body()
}

const (
	badCredentials = "Bad credentials"
	jsonType       = "application/json; charset=utf-8"
)
