package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"devpilot.io/bitbucket/pkg/apierr"
)

// ContentETag is the entity tag of what is answered (RFC 9110 section 8.8.3).
func ContentETag(content []byte) string {
	sum := sha256.Sum256(content)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`
}

// NoneMatch says whether If-None-Match names the tag, so that 304 is the answer. The comparison is
// the weak one (RFC 9110 section 13.1.2).
func NoneMatch(r *http.Request, etag string) bool {
	for _, line := range r.Header.Values("If-None-Match") {
		for candidate := range strings.SplitSeq(line, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// held keeps an answer back until its tag is known.
type held struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (h *held) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

// Write implements http.ResponseWriter.
func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(b)
}

// send answers what was held: a good one of a list with the tag of its content, and as 304 where the
// client has it; one of a single resource with the resource's own tag, for If-Match.
func (h *held) send(r *http.Request, list bool) {
	w := h.ResponseWriter
	if h.status == http.StatusOK {
		var tag string
		if list {
			tag = ContentETag(h.body.Bytes())
		} else {
			tag = resourceTag(h.body.Bytes())
		}
		if tag != "" {
			w.Header().Set("ETag", tag)
		}
		if list && NoneMatch(r, tag) {
			w.Header().Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if h.status != 0 {
		w.WriteHeader(h.status)
	}
	_, _ = w.Write(h.body.Bytes()) // a client that went away is no error of ours
}

func resourceTag(body []byte) string {
	var resource struct {
		ETag string `json:"etag"`
	}
	if json.Unmarshal(body, &resource) != nil || resource.ETag == "" {
		return ""
	}
	return `"` + resource.ETag + `"`
}

type ifMatchKey struct{}

// withIfMatch notes the If-Match header, in the form of an etag field, for the RPC that follows.
func withIfMatch(ctx context.Context, r *http.Request) (context.Context, error) {
	values := r.Header.Values("If-Match")
	if len(values) == 0 || r.Method == http.MethodGet {
		return ctx, nil
	}
	tag := strings.TrimPrefix(strings.TrimSpace(values[0]), "W/")
	if len(values) > 1 || strings.Contains(tag, ",") {
		return nil, apierr.New(apierr.ReasonInvalidArgument, "If-Match must hold one etag.", apierr.WithField("If-Match", "must hold one etag"))
	}
	if tag == "*" {
		return ctx, nil // "if it exists": what does not is not found in any case
	}
	return context.WithValue(ctx, ifMatchKey{}, strings.Trim(tag, `"`)), nil
}

// applyIfMatch puts the noted tag into the request's etag field, or into that of the resource it
// carries. A request that has neither is refused: the caller believes that it is guarded.
func applyIfMatch(ctx context.Context, msg proto.Message) error {
	tag, ok := ctx.Value(ifMatchKey{}).(string)
	if !ok {
		return nil
	}
	m := msg.ProtoReflect()
	target, field := etagField(m)
	if field == nil {
		return apierr.New(apierr.ReasonInvalidArgument, "This request does not take If-Match: what it does cannot be made to depend on an etag.",
			apierr.WithField("If-Match", "not taken by this request"))
	}
	if have := target.Get(field).String(); have != "" && have != tag {
		return apierr.New(apierr.ReasonInvalidArgument, "If-Match and the field etag differ. Send one of them.", apierr.WithField("etag", "differs from If-Match"))
	}
	target.Set(field, protoreflect.ValueOfString(tag))
	return nil
}

func etagField(m protoreflect.Message) (protoreflect.Message, protoreflect.FieldDescriptor) {
	fields := m.Descriptor().Fields()
	if f := fields.ByName("etag"); f != nil && f.Kind() == protoreflect.StringKind {
		return m, f
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.IsList() || f.IsMap() || !m.Has(f) {
			continue
		}
		inner := m.Mutable(f).Message()
		if e := inner.Descriptor().Fields().ByName("etag"); e != nil && e.Kind() == protoreflect.StringKind {
			return inner, e
		}
	}
	return nil, nil
}
