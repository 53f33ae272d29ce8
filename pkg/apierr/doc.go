// Package apierr is the one error type of the product.
//
// An [Error] has a reason (what happened, one word of DESIGN.md#errors), and from the one
// table in table.go follow its kind, gRPC code, HTTP status, whether a repeat can help, and what
// a person can do. The kind is decided once, where the meaning is known; everything above wraps
// with %w. Inside the product an error travels as a gRPC status with ErrorInfo, BadRequest and
// RetryInfo; it leaves the product as application/problem+json (RFC 9457).
//
// The message of an Error is public: a sentence for people that says what happened and what to do
// next. Its cause is not: it shows in Error() and so in logs, and never leaves the process.
//
// HTTP 401 belongs to UNAUTHENTICATED alone, the caller's own credentials. Trouble with Bitbucket
// is 409, 429 or 503.
//
// Depends on grpc's status and codes and on the google.rpc error details; on nothing of ours.
package apierr
