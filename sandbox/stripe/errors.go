package stripe

import (
	"net/http"

	"lockstep/sandbox"
)

// Error is an error as Stripe words it.
type Error struct {
	Status  int
	Type    string
	Code    string
	Param   string
	Message string
	Decline string // why a card was declined
	Charge  string
	Intent  doc // the payment intent in question
	retry   string
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// body is the error as JSON.
func (e *Error) body(request string) []byte {
	inner := doc{"type": e.Type, "message": e.Message}
	for key, value := range map[string]string{"code": e.Code, "param": e.Param, "decline_code": e.Decline, "charge": e.Charge} {
		if value != "" {
			inner[key] = value
		}
	}
	if e.Code != "" {
		inner["doc_url"] = "https://stripe.com/docs/error-codes/" + dashed(e.Code)
	}
	if e.Intent != nil {
		inner["payment_intent"] = e.Intent
	}
	if request != "" {
		inner["request_log_url"] = "https://dashboard.stripe.com/test/logs/" + request
	}
	return sandbox.Encode(doc{"error": inner})
}

func dashed(code string) string {
	out := []byte(code)
	for i, c := range out {
		if c == '_' {
			out[i] = '-'
		}
	}
	return string(out)
}

func invalid(param, code, message string) *Error {
	return &Error{Status: http.StatusBadRequest, Type: "invalid_request_error", Code: code, Param: param, Message: message}
}

// missing is the error for an object in the path that is not there; one that a
// parameter names has status 400 (see inParam).
func missing(noun, id, param string) *Error {
	return &Error{Status: http.StatusNotFound, Type: "invalid_request_error", Code: "resource_missing", Param: param, Message: "No such " + noun + ": '" + id + "'"}
}

// inParam makes of an error about an object one about the parameter that named it.
func (e *Error) inParam(param string) *Error {
	e.Status, e.Param = http.StatusBadRequest, param
	return e
}

func declined(code, reason, message string) *Error {
	return &Error{Status: http.StatusPaymentRequired, Type: "card_error", Code: code, Decline: reason, Message: message}
}

// refuse is Core's way to an error that only a status is known of.
func refuse(status int) (contentType string, body []byte) {
	e := &Error{Status: status, Type: "api_error", Message: "An error occurred. Sorry about that!"}
	switch {
	case status == http.StatusTooManyRequests:
		e.Type, e.Code, e.Message = "invalid_request_error", "rate_limit", tooMany
	case status == http.StatusUnauthorized:
		e.Type, e.Code, e.Message = "invalid_request_error", "api_key_expired", "Expired API Key provided."
	case status == http.StatusConflict:
		e.Type, e.Code, e.Message = "invalid_request_error", "lock_timeout", "This object cannot be accessed right now because another API request or Stripe process is currently accessing it."
	case status < http.StatusInternalServerError:
		e.Type, e.Message = "invalid_request_error", http.StatusText(status)
	}
	return "application/json", e.body("")
}

const tooMany = "Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits."
