package ingress

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// answer is what Bitbucket gets, and the person who reads it there.
type answer struct {
	status int
	reason string // short word for metrics and logs
	err    error  // for the log
	push   *storev1.ReadPush
	proof  string // hook.HeaderProof of a proof

	Message  string   `json:"message"`
	Delivery string   `json:"delivery,omitempty"` // our id of what was stored
	Branches []string `json:"branches,omitempty"` // that changed
	Watched  []string `json:"watched,omitempty"`  // that apps watch
}

func accept(status int, reason, message string) *answer {
	return &answer{status: status, reason: reason, Message: message}
}

func refuse(status int, reason, message string) *answer {
	return &answer{status: status, reason: reason, Message: message}
}

// trouble is our own: Bitbucket tries again (BITBUCKET.md#delivery-tries).
func trouble(reason, message string, err error) *answer {
	return &answer{status: http.StatusServiceUnavailable, reason: reason, Message: message, err: err}
}

func notFound() *answer {
	return refuse(http.StatusNotFound, "unknown", "Devpilot has no such webhook. If it was deleted there, delete it at Bitbucket, too.")
}

func tooLarge() *answer {
	return refuse(http.StatusRequestEntityTooLarge, "size", fmt.Sprintf("The body is larger than %d KiB; Bitbucket's deliveries are not.", MaxBody>>10))
}

// cannotCheck is said where a signature is neither right nor wrong.
const cannotCheck = "Devpilot cannot check the signature at the moment."

func badSignature(err error) *answer {
	switch {
	case errors.Is(err, hook.ErrSignatureMissing):
		return refuse(http.StatusUnauthorized, "unsigned", "The signature is missing: enter the secret that Devpilot shows for this webhook at Bitbucket, in the webhook's settings.")
	case errors.Is(err, hook.ErrSignatureMalformed), errors.Is(err, hook.ErrSignatureMismatch):
		return refuse(http.StatusUnauthorized, "signature", "The signature does not match: enter the secret that Devpilot shows for this webhook at Bitbucket, in the webhook's settings.")
	default: // our secret cannot be opened: nobody else's fault
		return trouble("secret", cannotCheck, err)
	}
}

func (a *answer) write(w http.ResponseWriter, requestID string) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Request-Id", requestID)
	if a.proof != "" {
		header.Set(hook.HeaderProof, a.proof)
	}
	if a.status == http.StatusRequestEntityTooLarge || a.reason == reasonSlow {
		header.Set("Connection", "close") // the rest of the body is not worth reading
	}
	body, err := json.Marshal(a)
	if err != nil { // strings only: cannot happen
		body = []byte(`{"message":""}`)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(a.status)
	_, _ = w.Write(append(body, '\n')) // who is gone does not read it
}

// validID reports whether a path segment can be a webhook's id at all.
func validID(id string) bool {
	if len(id) < 16 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// maxHeader is how much of a header's value is kept.
const maxHeader = 200

// clip makes a header's value fit to be stored: valid UTF-8 without control characters, capped.
func clip(s string) string {
	if len(s) > maxHeader {
		s = s[:maxHeader]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// short makes a name from outside fit for a sentence.
func short(s string) string {
	s = clip(s)
	if r := []rune(s); len(r) > 80 {
		return string(r[:79]) + "…"
	}
	return s
}

func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
