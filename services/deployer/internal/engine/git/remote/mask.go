package remote

import (
	"encoding/base64"
	"net/url"
	"strings"

	"devpilot.io/bitbucket/pkg/seal"
)

// Forms are the forms in which a token may show up in a program's output: as it is, as part of a
// URL, and as the Authorization header that git makes of it.
func Forms(token seal.Secret) []string {
	if token.IsZero() {
		return nil
	}
	t := token.Reveal()
	forms := []string{t}
	for _, f := range []string{url.QueryEscape(t), url.PathEscape(t), base64.StdEncoding.EncodeToString([]byte(UserName + ":" + t)), base64.StdEncoding.EncodeToString([]byte(t))} {
		if f != t {
			forms = append(forms, f)
		}
	}
	return forms
}

// Mask hides a token in a text.
func Mask(text string, token seal.Secret) string {
	for _, f := range Forms(token) {
		text = strings.ReplaceAll(text, f, seal.Redacted)
	}
	return text
}
