package rest

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"devpilot.io/bitbucket/services/gateway/internal/edge"
)

const (
	// compressFrom is from how many bytes on an answer is compressed: below, a packet or two are saved.
	compressFrom = 4 << 10
	encoding     = "gzip"
	// encodedMark ends the tag of a compressed answer: a strong tag is of one encoding (RFC 9110 section 8.8.3.3).
	encodedMark = "-" + encoding
)

var compressors = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // fails for a level that there is not
	return w
}}

// SendTagged answers a GET or HEAD with the body under its tag: as 304 where the client has it, in whatever
// encoding, and compressed where it is large and the client takes that. Content-Type must be set.
func SendTagged(w http.ResponseWriter, r *http.Request, etag string, body []byte) {
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	packed := strings.TrimSuffix(etag, `"`) + encodedMark + `"`
	compress := len(body) >= compressFrom && edge.Accepts(r.Header.Get("Accept-Encoding"), encoding)
	known := NoneMatch(r, etag) || NoneMatch(r, packed)
	if compress {
		etag = packed
	}
	h.Set("ETag", etag)
	if known {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if compress {
		h.Set("Content-Encoding", encoding)
		body = compressed(body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // a client that went away is no error of ours
}

func compressed(body []byte) []byte {
	var out bytes.Buffer
	w, _ := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	w.Reset(&out)
	_, _ = w.Write(body) // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}
