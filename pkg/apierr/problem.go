package apierr

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// ProblemContentType is the media type of [Problem].
const ProblemContentType = "application/problem+json"

// Problem is the public form of an error, RFC 9457 with the members of DESIGN.md#errors.
type Problem struct {
	// Type identifies the reason; a tag URI (RFC 4151), for comparing, not for following.
	Type string `json:"type"`
	// Title is short and the same for every problem of the kind.
	Title string `json:"title"`
	// Status repeats the HTTP status.
	Status int `json:"status"`
	// Detail is a sentence for people, with what to do next.
	Detail string `json:"detail"`
	// Reason is the word for programs.
	Reason Reason `json:"reason"`
	// Fields lists the violations; empty when the request as a whole is meant, never null.
	Fields []Field `json:"fields"`
	// RetryAfterSeconds is when a repeat can help; absent when no time is known.
	RetryAfterSeconds int32 `json:"retryAfterSeconds,omitempty"`
	// RequestID is the id of the request, also in the logs.
	RequestID string `json:"requestId"`
	// Details are further facts for programs, by reason; absent when there are none.
	Details map[string]string `json:"details,omitempty"`
}

// Problem makes the public form.
func (e *Error) Problem(requestID string) Problem {
	k := kinds[e.kind]
	fields := e.Fields()
	if fields == nil {
		fields = []Field{}
	}
	return Problem{
		Type:              "tag:devpilot.io,2026:problem:" + string(e.reason),
		Title:             k.title,
		Status:            k.http,
		Detail:            e.message,
		Reason:            e.reason,
		Fields:            fields,
		RetryAfterSeconds: e.retryAfterSeconds(),
		RequestID:         requestID,
		Details:           e.Details(),
	}
}

// retryAfterSeconds rounds up: a client that comes back a moment too early is refused again.
func (e *Error) retryAfterSeconds() int32 {
	const limit = 7 * 24 * time.Hour
	return int32((min(e.retryAfter, limit) + time.Second - 1) / time.Second)
}

// WriteProblem answers a request with err as application/problem+json, and with Retry-After when a
// time is known. Call it only before anything was written. The answer is never cached.
func WriteProblem(w http.ResponseWriter, requestID string, err error) {
	e := From(err)
	if e == nil {
		e = New(ReasonInternal, Neutral)
	}
	p := e.Problem(requestID)
	body, merr := json.Marshal(p)
	if merr != nil { // cannot happen: strings, numbers and a map of strings
		http.Error(w, p.Title, p.Status)
		return
	}
	h := w.Header()
	h.Del("Content-Length")
	h.Del("Content-Encoding")
	h.Del("ETag")
	h.Set("Content-Type", ProblemContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(p.RetryAfterSeconds)))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="devpilot"`) // RFC 9110 section 15.5.2 asks for it
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // a client that went away is no error of ours
}
