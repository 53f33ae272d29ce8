package apierr

import (
	"net/http"

	"google.golang.org/grpc/codes"
)

// Kind is the class of an error: it decides the gRPC code and the HTTP status. Every Kind is
// itself an error, so that errors.Is(err, apierr.NotFound) asks for the class.
type Kind int

// The kinds, each with its HTTP status.
const (
	Internal           Kind = iota // 500: our fault, or not understood
	Invalid                        // 400: the request itself is wrong, whatever the state (see the function InvalidArgument)
	Unauthenticated                // 401: the caller's own credentials are missing or dead
	PermissionDenied               // 403: known, but not allowed
	NotFound                       // 404
	MethodNotAllowed               // 405
	AlreadyExists                  // 409: a create met an existing one
	FailedPrecondition             // 409: right request, wrong state; something else must happen first
	Aborted                        // 412: the resource changed since its etag was read
	TooLarge                       // 413
	MediaType                      // 415
	ResourceExhausted              // 429: too many requests, here or at Bitbucket
	Canceled                       // 499: the caller went away
	Unimplemented                  // 501
	Unavailable                    // 503: a store, another service or Bitbucket cannot answer now
	DeadlineExceeded               // 504: the time allowed ran out
)

// Retry says whether repeating the same request can help.
type Retry string

// The three answers.
const (
	RetryNever   Retry = "never"   // not before something else changed
	RetryAfter   Retry = "after"   // after the time in retryAfterSeconds
	RetryBackoff Retry = "backoff" // with exponential backoff and jitter
)

type kindRow struct {
	name  string
	title string
	code  codes.Code
	http  int
	retry Retry
}

// kinds is the kind half of the table. A kind without a row would be Internal by accident; the
// test walks all of them.
var kinds = map[Kind]kindRow{
	Internal:           {"internal", "Internal error", codes.Internal, http.StatusInternalServerError, RetryBackoff},
	Invalid:            {"invalid argument", "Invalid request", codes.InvalidArgument, http.StatusBadRequest, RetryNever},
	Unauthenticated:    {"unauthenticated", "Sign-in required", codes.Unauthenticated, http.StatusUnauthorized, RetryNever},
	PermissionDenied:   {"permission denied", "Not allowed", codes.PermissionDenied, http.StatusForbidden, RetryNever},
	NotFound:           {"not found", "Not found", codes.NotFound, http.StatusNotFound, RetryNever},
	MethodNotAllowed:   {"method not allowed", "Method not allowed", codes.Unimplemented, http.StatusMethodNotAllowed, RetryNever},
	AlreadyExists:      {"already exists", "Already exists", codes.AlreadyExists, http.StatusConflict, RetryNever},
	FailedPrecondition: {"failed precondition", "Not possible now", codes.FailedPrecondition, http.StatusConflict, RetryNever},
	Aborted:            {"aborted", "Changed meanwhile", codes.Aborted, http.StatusPreconditionFailed, RetryNever},
	TooLarge:           {"too large", "Too large", codes.OutOfRange, http.StatusRequestEntityTooLarge, RetryNever},
	MediaType:          {"media type", "Unsupported media type", codes.InvalidArgument, http.StatusUnsupportedMediaType, RetryNever},
	ResourceExhausted:  {"resource exhausted", "Too many requests", codes.ResourceExhausted, http.StatusTooManyRequests, RetryAfter},
	Canceled:           {"canceled", "Request canceled", codes.Canceled, statusClientClosedRequest, RetryNever},
	Unimplemented:      {"unimplemented", "Not implemented", codes.Unimplemented, http.StatusNotImplemented, RetryNever},
	Unavailable:        {"unavailable", "Temporarily unavailable", codes.Unavailable, http.StatusServiceUnavailable, RetryBackoff},
	DeadlineExceeded:   {"deadline exceeded", "Timed out", codes.DeadlineExceeded, http.StatusGatewayTimeout, RetryBackoff},
}

// statusClientClosedRequest is nginx's 499, for access logs: the client that would read it is gone.
const statusClientClosedRequest = 499

// Kinds lists every kind.
func Kinds() []Kind {
	all := make([]Kind, 0, len(kinds))
	for k := Internal; k <= DeadlineExceeded; k++ {
		all = append(all, k)
	}
	return all
}

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return k.String() }

// String is the kind in lower-case words, as logged under err_kind.
func (k Kind) String() string { return kinds[k].name }

// Code is the gRPC code of the kind.
func (k Kind) Code() codes.Code { return kinds[k].code }

// HTTPStatus is the HTTP status of the kind.
func (k Kind) HTTPStatus() int { return kinds[k].http }

// kindOfCode maps a gRPC code to the kind it means when no reason came with it. Every code has a
// case of its own, so that a new one is a decision and not a default.
func kindOfCode(c codes.Code) Kind {
	switch c {
	case codes.InvalidArgument:
		return Invalid
	case codes.OutOfRange:
		return TooLarge
	case codes.Unauthenticated:
		return Unauthenticated
	case codes.PermissionDenied:
		return PermissionDenied
	case codes.NotFound:
		return NotFound
	case codes.AlreadyExists:
		return AlreadyExists
	case codes.FailedPrecondition:
		return FailedPrecondition
	case codes.Aborted:
		return Aborted
	case codes.ResourceExhausted:
		return ResourceExhausted
	case codes.Canceled:
		return Canceled
	case codes.Unimplemented:
		return Unimplemented
	case codes.Unavailable:
		return Unavailable
	case codes.DeadlineExceeded:
		return DeadlineExceeded
	case codes.OK, codes.Unknown, codes.Internal, codes.DataLoss:
		return Internal
	}
	return Internal
}
