package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/seal"
)

// post sends a delivery as Bitbucket would and returns the status and the message answered.
type post struct {
	url, secret string
	body        []byte
	header      map[string]string
}

func (s *stack) post(p post) (int, string) {
	s.t.Helper()
	status, message, err := deliver(p)
	if err != nil {
		s.t.Fatalf("POST %s: %v", p.url, err)
	}
	return status, message
}

func deliver(p post) (status int, message string, err error) {
	req, err := http.NewRequest(http.MethodPost, p.url, bytes.NewReader(p.body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set(hook.HeaderEvent, "repo:push")
	req.Header.Set(hook.HeaderAttempt, "1")
	if p.secret != "" {
		req.Header.Set(hook.HeaderSignature, hook.Sign(p.body, seal.NewSecret(p.secret)))
	}
	for k, v := range p.header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err
	}
	var answer struct{ Message string }
	if err := json.Unmarshal(raw, &answer); err != nil {
		return 0, "", fmt.Errorf("the answer %q is not JSON: %w", raw, err)
	}
	return resp.StatusCode, answer.Message, nil
}

// pushBody is a push that moves a branch of acme/web.
func pushBody(branch, hash string) []byte {
	return fmt.Appendf(nil, `{"push":{"changes":[{"old":{"type":"branch","name":%[1]q,"target":{"type":"commit","hash":"a51241aea51241aea51241aea51241aea51241ae"}},`+
		`"new":{"type":"branch","name":%[1]q,"target":{"type":"commit","hash":%[2]q,"message":"Change\n","date":"2026-09-07T20:19:25+00:00","author":{"type":"author","raw":"Jane <jane@example.test>"}}},`+
		`"created":false,"closed":false,"forced":false,"truncated":false}]},"repository":{"type":"repository","uuid":"{%[3]s}","full_name":"acme/web","name":"Web"},`+
		`"actor":{"type":"user","display_name":"Jane Developer","nickname":"Jane"}}`, branch, hash, web)
}

// hash makes a commit hash of a number.
func hash(n int) string { return fmt.Sprintf("%040x", n) }
