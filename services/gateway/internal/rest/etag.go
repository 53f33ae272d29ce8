package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	headerIfMatch     = "If-Match"
	headerIfNoneMatch = "If-None-Match"
	// HeaderLastEventID is sent by a browser that goes on with a stream.
	HeaderLastEventID = "Last-Event-ID"

	etagName  = "etag"
	emptyETag = "must not be empty: send the etag that you saw, or leave it out"
)

// ContentETag is the entity tag of what is answered (RFC 9110 section 8.8.3).
func ContentETag(content []byte) string { return `"` + digest(content) + `"` }

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return base64.RawURLEncoding.EncodeToString(sum[:15])
}

// revisionMark parts the two halves of a resource's tag: its revision, the field etag, and the digest
// of the answer. Revisions have no dot.
const revisionMark = "."

// answerETag is the tag of an answer. That of a resource begins with its revision, so that a client
// may send it back as If-Match; all of it changes with the answer, so that it is a strong validator:
// what an app's latest deployment is changes the answer and not the revision.
func answerETag(revision string, body []byte) string {
	if !isOpaque(revision) {
		return ContentETag(body)
	}
	return `"` + revision + revisionMark + digest(body) + `"`
}

// noteRevision keeps the revision of the resource that is about to be answered.
func noteRevision(_ context.Context, w http.ResponseWriter, answer proto.Message) error {
	h, ok := w.(*held)
	if !ok {
		return nil
	}
	if part, ok := answer.(interface{ XXX_ResponseBody() any }); ok { // grpc-gateway's: the field that is the body
		if answer, ok = part.XXX_ResponseBody().(proto.Message); !ok {
			return nil
		}
	}
	h.revision = revisionOf(answer)
	return nil
}

// revisionOf is the revision of a resource; empty for what has none.
func revisionOf(answer proto.Message) string {
	m := answer.ProtoReflect()
	if f := m.Descriptor().Fields().ByName(etagName); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
		return m.Get(f).String()
	}
	return ""
}

// Answer is what a GET answers with a resource: its body, and its tag as the header has it.
func Answer(resource proto.Message) (body []byte, etag string, err error) {
	if body, err = Marshal(resource); err != nil {
		return nil, "", err
	}
	return body, answerETag(revisionOf(resource), body), nil
}

// tag is an entity tag as a header has it, without its quotes.
type tag struct {
	weak   bool
	opaque string
}

// revision is the half of a tag that If-Match is about.
func (t tag) revision() string {
	revision, _, _ := strings.Cut(t.opaque, revisionMark)
	return revision
}

// parseTags reads If-Match or If-None-Match: "*", or entity tags with commas between (RFC 9110
// sections 8.8.3 and 13.1). ok is false for what is neither.
func parseTags(values []string) (tags []tag, any, ok bool) {
	text := strings.TrimSpace(strings.Join(values, ","))
	if text == "*" {
		return nil, true, true
	}
	for {
		text = strings.TrimLeft(text, " \t,") // a list may have empty elements (RFC 9110 section 5.6.1)
		if text == "" {
			return tags, false, len(tags) > 0
		}
		rest, weak := strings.CutPrefix(text, "W/")
		rest, quoted := strings.CutPrefix(rest, `"`)
		opaque, after, closed := strings.Cut(rest, `"`)
		if after = strings.TrimLeft(after, " \t"); !quoted || !closed || !isOpaque(opaque) && opaque != "" || after != "" && after[0] != ',' {
			return nil, false, false
		}
		tags = append(tags, tag{weak, opaque})
		text = after
	}
}

// isOpaque tells whether text can stand in an entity tag.
func isOpaque(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < 0x21 || c == '"' || c == 0x7f {
			return false
		}
	}
	return text != ""
}

// NoneMatch says whether If-None-Match names the tag, so that 304 is the answer. The comparison is
// the weak one (RFC 9110 section 13.1.2). A header that cannot be read names nothing.
func NoneMatch(r *http.Request, etag string) bool {
	tags, any, _ := parseTags(r.Header.Values(headerIfNoneMatch))
	for _, t := range tags {
		any = any || `"`+t.opaque+`"` == etag
	}
	return any
}

// held keeps an answer back until its tag is known.
type held struct {
	http.ResponseWriter
	status   int
	body     bytes.Buffer
	revision string // of the resource that is answered; empty for none
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

// send answers what was held: a good one with its tag.
func (h *held) send(r *http.Request) {
	w := h.ResponseWriter
	if h.status == http.StatusOK {
		SendTagged(w, r, answerETag(h.revision, h.body.Bytes()), h.body.Bytes())
		return
	}
	if h.status != 0 {
		w.Header().Set("Content-Length", strconv.Itoa(h.body.Len()))
		w.WriteHeader(h.status)
	}
	_, _ = w.Write(h.body.Bytes()) // a client that went away is no error of ours
}
