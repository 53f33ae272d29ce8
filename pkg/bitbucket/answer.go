package bitbucket

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxMessage caps what is kept of Bitbucket's own words, in runes.
const maxMessage = 300

// errorEnvelope is the general error body. detail and fields change their type between errors
// (BITBUCKET.md#presenting-a-token and BITBUCKET.md#webhook-errors), so they are decoded one at a time and may fail alone.
type errorEnvelope struct {
	Error struct {
		Message string          `json:"message"`
		Detail  json.RawMessage `json:"detail"`
		Fields  json.RawMessage `json:"fields"`
		Data    json.RawMessage `json:"data"`
	} `json:"error"`
}

// answerError reads a refused call: status and headers decide, the body only adds words.
func answerError(route Route, subject string, status int, header http.Header, body []byte, now time.Time) *Error {
	e := &Error{Route: route, Subject: subject, Status: status}
	var removed bool
	var env errorEnvelope
	if json.Unmarshal(body, &env) == nil && (env.Error.Message != "" || len(env.Error.Fields) > 0 || len(env.Error.Detail) > 0) {
		e.Message = oneLine(env.Error.Message)
		e.readDetail(env.Error.Detail)
		e.Fields = readFields(env.Error.Fields)
		var data struct {
			URL string `json:"announcement_url"`
		}
		removed = json.Unmarshal(env.Error.Data, &data) == nil && data.URL != ""
	} else if !looksLikeMarkup(header, body) {
		// 400, 401 and 429 come as bare text too (BITBUCKET.md#answers).
		e.Message = oneLine(string(body))
	}
	e.Kind = e.classify(removed)
	switch e.Kind {
	case KindRateLimited:
		e.RetryAfter = RetryAfter(header, now)
	case KindUnavailable: // 503 may say it too (RFC 9110 section 10.2.3)
		e.RetryAfter = RetryAfter(http.Header{"Retry-After": header.Values("Retry-After")}, now)
	default:
	}
	return e
}

func (e *Error) classify(callRemoved bool) Kind {
	text := strings.ToLower(e.Message)
	switch {
	case e.Status == http.StatusUnauthorized:
		return KindUnauthorized
	case e.Status == http.StatusTooManyRequests:
		return KindRateLimited
	case e.Status == http.StatusForbidden:
		return e.classifyForbidden(text)
	case e.Status == http.StatusNotFound:
		return KindNotFound
	case e.Status == http.StatusGone:
		if callRemoved || strings.HasPrefix(text, "change-") {
			return KindCallRemoved
		}
		return KindGone
	case e.Status >= 500:
		return KindUnavailable
	case e.Status >= 400:
		return KindInvalid
	default:
		return KindUnknown
	}
}

// classifyForbidden tells the meanings of 403 apart. Only the missing scope has a structure
// (BITBUCKET.md#presenting-a-token); the others are known by their texts (BITBUCKET.md#budgets and BITBUCKET.md#git-errors).
func (e *Error) classifyForbidden(text string) Kind {
	switch {
	case len(e.Required) > 0 || strings.Contains(text, "required privilege scopes"):
		return KindScopeMissing
	case strings.Contains(text, "rate limit"):
		return KindRateLimited
	case strings.Contains(text, "whitelist"), strings.Contains(text, "allowlist"), strings.Contains(text, "allow list"),
		strings.Contains(text, "ip address"), strings.Contains(text, "your ip"),
		strings.Contains(text, "two-step"), strings.Contains(text, "2-step"), strings.Contains(text, "two-factor"),
		strings.Contains(text, "single sign-on"):
		return KindAccessRestricted
	default:
		return KindForbidden
	}
}

func (e *Error) readDetail(raw json.RawMessage) {
	var scopes struct {
		Granted  []string `json:"granted"`
		Required []string `json:"required"`
	}
	if json.Unmarshal(raw, &scopes) == nil {
		e.Granted, e.Required = scopes.Granted, scopes.Required
		return
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		e.Detail = oneLine(text)
	}
}

// readFields accepts the object and the array style of validation errors (BITBUCKET.md#webhook-errors).
func readFields(raw json.RawMessage) map[string][]string {
	fields := map[string][]string{}
	var byName map[string]json.RawMessage
	if json.Unmarshal(raw, &byName) == nil {
		for name, v := range byName {
			fields[oneLine(name)] = append(fields[oneLine(name)], texts(v)...)
		}
	} else if list := texts(raw); len(list) > 0 {
		fields[""] = list
	}
	if len(fields) == 0 {
		return nil
	}
	return fields
}

// texts reads a string or a list of strings.
func texts(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		for i := range list {
			list[i] = oneLine(list[i])
		}
		return list
	}
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{oneLine(one)}
	}
	return nil
}

// looksLikeMarkup reports whether a body is a page of a gateway and no sentence.
func looksLikeMarkup(header http.Header, body []byte) bool {
	return strings.Contains(strings.ToLower(header.Get("Content-Type")), "html") ||
		strings.HasPrefix(strings.TrimSpace(string(body[:min(len(body), 64)])), "<")
}

// oneLine makes others' text fit for a log line and a message: valid UTF-8, no control characters,
// single spaces, capped.
func oneLine(s string) string {
	if len(s) > 8*maxMessage {
		s = s[:8*maxMessage]
	}
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "�"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if r := []rune(s); len(r) > maxMessage {
		s = string(r[:maxMessage-1]) + "…"
	}
	return s
}

// maxRetryAfter caps what a header may ask for: more than a day is a mistake.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads how long to wait: Retry-After in seconds or as a date (RFC 9110 section 10.2.3),
// else x-ratelimit-reset, which at Bitbucket counts the seconds that remain and is no time of day
// (BITBUCKET.md#budgets). Zero when neither is there.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	if v := strings.TrimSpace(header.Get("Retry-After")); v != "" {
		if d, ok := seconds(v, now); ok {
			return d
		}
		if at, err := http.ParseTime(v); err == nil {
			return clampWait(at.Sub(now))
		}
	}
	if d, ok := seconds(strings.TrimSpace(header.Get("X-RateLimit-Reset")), now); ok {
		return d
	}
	return 0
}

// epochSeconds is the smallest number taken for a Unix time: no wait lasts thirty years.
const epochSeconds = 1_000_000_000

func seconds(v string, now time.Time) (time.Duration, bool) {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || n < 0 || n != n {
		return 0, false
	}
	if n >= epochSeconds {
		if n > 10*epochSeconds {
			return maxRetryAfter, true
		}
		return clampWait(time.Unix(int64(n), 0).Sub(now)), true
	}
	return clampWait(time.Duration(n * float64(time.Second))), true
}

func clampWait(d time.Duration) time.Duration { return min(max(d, time.Second), maxRetryAfter) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
