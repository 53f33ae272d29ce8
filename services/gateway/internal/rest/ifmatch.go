package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// maxTags bounds the tags of one If-Match: each is tried.
const maxTags = 10

type ifMatchKey struct{}

// withIfMatch notes the revisions that If-Match names, for the RPC that follows. A header that cannot
// be read, or that this request cannot obey, is a fault: whoever sends it believes to be guarded.
func withIfMatch(ctx context.Context, r *http.Request, route routes.Route, faults *apierr.Faults) context.Context {
	if route.Method == http.MethodGet {
		return ctx
	}
	if r.Header.Values(headerIfNoneMatch) != nil {
		faults.Add(headerIfNoneMatch, "is for GET and HEAD; to change only what you saw, send If-Match")
	}
	values := r.Header.Values(headerIfMatch)
	if values == nil {
		return ctx
	}
	tags, exists, ok := parseTags(values)
	switch {
	case faults.Has(headerIfMatch): // not even text
	case !route.TakesETag():
		faults.Add(headerIfMatch, "is not taken by this request: what it does cannot be made to depend on an etag")
	case !ok:
		faults.Add(headerIfMatch, `must be an etag in double quotes, several with commas between, or *`)
	case len(tags) > maxTags:
		faults.Add(headerIfMatch, fmt.Sprintf("must have at most %d etags", maxTags))
	case exists:
		return ctx // "if there is one": what is not there is not found in any case
	}
	var revisions []string
	for _, t := range tags {
		switch {
		case t.revision() == "":
			faults.Add(headerIfMatch, emptyETag)
		case !t.weak: // a weak one matches nothing here (RFC 9110 section 13.1.1)
			revisions = append(revisions, t.revision())
		}
	}
	if len(revisions) == 0 {
		revisions = []string{neverARevision}
	}
	return context.WithValue(ctx, ifMatchKey{}, revisions)
}

// neverARevision is an etag that no resource has: quotes cannot stand in one.
const neverARevision = `""`

// withRevisions calls for each revision that If-Match named until one is the resource's: a call with
// another changes nothing. Without If-Match it calls once.
func withRevisions(ctx context.Context, msg proto.Message, call func() error) error {
	revisions, ok := ctx.Value(ifMatchKey{}).([]string)
	if !ok {
		return call()
	}
	target, field := etagField(msg.ProtoReflect())
	if field == nil { // the routes promise one
		return fmt.Errorf("rest: %s has no etag", msg.ProtoReflect().Descriptor().FullName())
	}
	if have := target.Get(field).String(); have != "" {
		if !slices.Contains(revisions, have) {
			return apierr.New(apierr.ReasonInvalidArgument, "If-Match and the field etag differ. Send one of them.", apierr.WithField(etagName, "differs from If-Match"))
		}
		return call()
	}
	var err error
	for _, revision := range revisions {
		target.Set(field, protoreflect.ValueOfString(revision))
		if err = call(); !apierr.Has(err, apierr.ReasonEtagMismatch) {
			return err
		}
	}
	return err
}

// etagField is the request's field etag, or that of the resource it carries.
func etagField(m protoreflect.Message) (protoreflect.Message, protoreflect.FieldDescriptor) {
	fields := m.Descriptor().Fields()
	if f := fields.ByName(etagName); f != nil && f.Kind() == protoreflect.StringKind {
		return m, f
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.IsList() || f.IsMap() {
			continue
		}
		if e := f.Message().Fields().ByName(etagName); e != nil && e.Kind() == protoreflect.StringKind {
			return m.Mutable(f).Message(), e
		}
	}
	return nil, nil
}
