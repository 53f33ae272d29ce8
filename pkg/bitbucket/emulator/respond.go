package emulator

import (
	"bytes"
	"crypto/md5" // an ETag, as Bitbucket makes it, not a protection
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// obj is a JSON object of an answer.
type obj map[string]any

// response is an answer of the REST API. A nil body with an empty text sends no body.
type response struct {
	status int
	header http.Header
	body   any
	text   string // text/plain instead of JSON
}

func ok(body any) response { return response{status: http.StatusOK, body: body} }

func (r response) with(name, value string) response {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Set(name, value)
	return r
}

// failure is the common error envelope of BITBUCKET.md#answers.
func failure(status int, message string) response {
	return response{status: status, body: obj{"type": "error", "error": obj{"message": message}}}
}

func plain(status int, text string) response { return response{status: status, text: text} }

// Messages that clients meet, as recorded (BITBUCKET.md#presenting-a-token, BITBUCKET.md#lists-that-are-gone and BITBUCKET.md#no-access).
const (
	msgTokenInvalid    = "Token is invalid, expired, or not supported for this endpoint."
	msgTokenExpired    = "OAuth2 access token expired. Use your refresh token to obtain a new access token."
	msgTokenExpiredOld = "Access token expired. Use your refresh token to obtain a new access token."
	msgScopes          = "Your credentials lack one or more required privilege scopes."
	msgNoRepository    = "You may not have access to this repository or it no longer exists in this workspace. If you think this repository exists and you have access, make sure you are authenticated."
	msgRateLimit       = "Rate limit for this resource has been exceeded"
	msgWriteAccess     = "Access denied. You must have write or admin access."
)

func repositoryNotFound() response { return failure(http.StatusNotFound, msgNoRepository) }

// insufficientRights is the 403 of webhooks (BITBUCKET.md#webhook-errors).
func insufficientRights() response {
	data := obj{"key": "INSUFFICIENT_RIGHTS"}
	return response{status: http.StatusForbidden, body: obj{
		"data": data, "type": "error", "error": obj{"message": msgWriteAccess, "data": data},
	}}
}

func missingScope(granted, required []string) response {
	if granted == nil {
		granted = []string{}
	}
	return response{status: http.StatusForbidden, body: obj{"type": "error", "error": obj{
		"message": msgScopes, "detail": obj{"granted": granted, "required": required},
	}}}
}

func workspaceNotFound(id string) response {
	return failure(http.StatusNotFound, fmt.Sprintf("No workspace with identifier '%s'.", id))
}

// gone is the body of the listing endpoints that ended on 2026-04-14 (BITBUCKET.md#lists-that-are-gone).
func gone() response {
	data := obj{"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"}
	return response{status: http.StatusGone, body: obj{
		"type": "error",
		"error": obj{
			"message": "CHANGE-2770 - Functionality has been deprecated",
			"detail":  "Please read the changelog entry for more details.",
			"data":    data,
		},
		"data": data,
	}}
}

// unauthorizedGit is git's 401 of today: its words are those of "no access" (BITBUCKET.md#git-errors).
func unauthorizedGit() response {
	return plain(http.StatusUnauthorized, msgNoRepository).with("WWW-Authenticate", `Basic realm="Bitbucket.org HTTP"`)
}

func unauthorizedBasic() response {
	return plain(http.StatusUnauthorized, "Invalid credentials").with("WWW-Authenticate", `Basic realm="Bitbucket.org HTTP"`)
}

// compactJSON encodes without spaces, HTML escapes or a final newline, as Bitbucket's recordings are.
func compactJSON(value any) ([]byte, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// send writes the answer. With a body it sets Content-Type, Content-Length and, on success, an ETag.
func (r response) send(w http.ResponseWriter) error {
	header := w.Header()
	for name, values := range r.header {
		header[name] = values
	}
	var body []byte
	switch {
	case r.text != "":
		if header.Get("Content-Type") == "" {
			header.Set("Content-Type", "text/plain; charset=utf-8")
		}
		body = []byte(r.text)
	case r.body != nil:
		var err error
		if body, err = compactJSON(r.body); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return err
		}
		header.Set("Content-Type", "application/json; charset=utf-8")
		if r.status == http.StatusOK {
			sum := md5.Sum(body) // as above
			header.Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		}
	default:
		w.WriteHeader(r.status)
		return nil
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(r.status)
	_, err := w.Write(body)
	return err
}
