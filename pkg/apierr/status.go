package apierr

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the domain of our ErrorInfo details.
const Domain = "devpilot.io"

// DetailErrorID is the detail under which an INTERNAL error carries the id that is also in the log.
const DetailErrorID = "errorId"

// Neutral is what leaves for errors that nobody gave a public message.
const Neutral = "Devpilot could not do this because of a fault of its own. Try again; if it stays, tell the operator when it happened."

// GRPCStatus makes the status that goes over the wire: code, public message, ErrorInfo with the
// reason and the details, BadRequest with the fields, RetryInfo with the retry time. grpc calls it
// for an *Error that a handler returns; the cause is not in it.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.kind.Code(), e.message)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: string(e.reason), Domain: Domain, Metadata: e.details}}
	if len(e.fields) > 0 {
		br := &errdetails.BadRequest{}
		for _, f := range e.fields {
			br.FieldViolations = append(br.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Name, Description: f.Message})
		}
		details = append(details, br)
	}
	if e.retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.retryAfter)})
	}
	with, err := st.WithDetails(details...)
	if err != nil { // only for text that is not UTF-8: the plain status still says the most
		return st
	}
	return with
}

// From reads any error as an *Error, and nil as nil: an *Error in err's tree as it is; a gRPC status decoded
// back; context.DeadlineExceeded and context.Canceled; everything else as INTERNAL with a neutral
// text. err stays as the cause, except where a bare status of ours says no more than the error
// made of it.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := find(err); ok {
		return e
	}
	// Before statuses: status.FromError also finds one below a context error.
	if st, ok := statusOf(err); ok {
		return fromStatus(st, err)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return timedOut(WithCause(err))
	case errors.Is(err, context.Canceled):
		return canceled(WithCause(err))
	}
	return New(ReasonInternal, Neutral, WithCause(err))
}

func timedOut(why Option) *Error {
	return New(ReasonTimeout, "The request took longer than it was allowed to. Try again.", why)
}

func canceled(why Option) *Error {
	return New(ReasonCanceled, "The request was canceled before it was done.", why)
}

// statusOf finds a gRPC status in err's tree, without status.FromError's habit of putting the
// wrapping text into the message.
func statusOf(err error) (*status.Status, bool) {
	var g interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &g) {
		return nil, false
	}
	st := g.GRPCStatus()
	return st, st != nil && st.Code() != codes.OK
}

// isStatus reports whether err is a status itself, with nothing wrapped around it.
func isStatus(err error) bool {
	_, ok := err.(interface{ GRPCStatus() *status.Status })
	return ok
}

func fromStatus(st *status.Status, cause error) *Error {
	var info *errdetails.ErrorInfo
	var fields []Field
	var after time.Duration
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				info = d
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fields = append(fields, Field{Name: v.GetField(), Message: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			after = d.GetRetryDelay().AsDuration()
		}
	}
	if info == nil {
		e := fromCode(st, cause)
		e.fields, e.retryAfter = fields, max(after, 0)
		return e
	}
	if isStatus(cause) {
		cause = nil
	}
	e := &Error{
		reason: Reason(info.GetReason()), kind: kindOfCode(st.Code()), message: st.Message(),
		fields: fields, retryAfter: max(after, 0), cause: cause,
	}
	// A newer service may send a reason that this one does not know: it is kept, with the code's kind.
	if row, ok := byReason[e.reason]; ok {
		e.kind = row.Kind
	}
	for k, v := range info.GetMetadata() {
		WithDetail(k, v)(e)
	}
	return e
}

// fromCode reads a status that carries no reason of ours: from grpc itself (a service that does
// not answer, a message over the limit), from grpc-gateway (a body that is not JSON), or from a
// foreign library. Only the text of INVALID_ARGUMENT is passed on, since it tells the caller which
// part of the body could not be read; the others speak of our insides.
func fromCode(st *status.Status, cause error) *Error {
	c := WithCause(cause)
	switch kindOfCode(st.Code()) {
	case Invalid, MediaType:
		return New(ReasonInvalidArgument, "The request could not be read: "+strings.TrimSpace(st.Message()), c)
	case TooLarge:
		return New(ReasonPayloadTooLarge, "The request is too large.", c)
	case Unauthenticated:
		return New(ReasonUnauthenticated, "Sign in to continue.", c)
	case PermissionDenied:
		return New(ReasonPermissionDenied, "You are not allowed to do this. Ask an owner or admin of the workspace.", c)
	case NotFound:
		return New(ReasonNotFound, "There is nothing at this address.", c)
	case Canceled:
		return canceled(c)
	case DeadlineExceeded:
		return timedOut(c)
	case Unimplemented, MethodNotAllowed:
		return New(ReasonUnimplemented, "This part of Devpilot does not know the request; its services may be of different versions.", c)
	case ResourceExhausted:
		// grpc uses this code for a message over the size limit and offers no other mark than its text.
		if strings.Contains(st.Message(), "message larger than max") || strings.Contains(st.Message(), "message too large") {
			return New(ReasonPayloadTooLarge, "The request or its answer is too large.", c)
		}
		return New(ReasonRateLimited, "Too many requests at once. Try again in a moment.", c, WithRetryAfter(time.Second))
	case Unavailable:
		return New(ReasonServiceUnavailable, "A part of Devpilot does not answer at the moment. Try again shortly.", c)
	case Internal, AlreadyExists, FailedPrecondition, Aborted:
		// Without a reason these say nothing that the caller could act on.
		return New(ReasonInternal, Neutral, c)
	}
	return New(ReasonInternal, Neutral, c)
}

// InternalWithID is the INTERNAL error that leaves for an error nobody typed: a neutral text and
// the id under which the cause was logged.
func InternalWithID(id string, cause error) *Error {
	return New(ReasonInternal,
		fmt.Sprintf("Devpilot could not do this because of a fault of its own. Try again; if it stays, give the operator the error id %s.", id),
		WithDetail(DetailErrorID, id), WithCause(cause))
}
