package seal_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"devpilot.io/bitbucket/pkg/seal"
)

const planted = "planted-s3cr3t-value"

type outer struct {
	Public seal.Secret
	hidden seal.Secret
	nested struct{ deep seal.Secret }
	ptr    *seal.Secret
	list   []seal.Secret
	byName map[string]seal.Secret
	any    any
}

type element struct{ S seal.Secret }

func newOuter() outer {
	s := seal.NewSecret(planted)
	o := outer{Public: s, hidden: s, ptr: &s, list: []seal.Secret{s}, byName: map[string]seal.Secret{"k": s}, any: s}
	o.nested.deep = s
	return o
}

func TestSecret_noRouteShowsIt(t *testing.T) {
	s, o := seal.NewSecret(planted), newOuter()
	routes := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%100v", "%.3s"} {
		routes["secret "+verb] = fmt.Sprintf(verb, s)
		routes["pointer "+verb] = fmt.Sprintf(verb, &s)
		routes["struct "+verb] = fmt.Sprintf(verb, o)
		routes["struct pointer "+verb] = fmt.Sprintf(verb, &o)
		routes["slice "+verb] = fmt.Sprintf(verb, []outer{o})
	}
	routes["print"] = fmt.Sprint(s, o, &o)
	routes["error"] = fmt.Errorf("token %v of %+v: %w", s, o, errors.New("x")).Error()
	routes["json"] = mustJSON(t, s)
	routes["json struct"] = mustJSON(t, o)
	routes["json map"] = mustJSON(t, map[string]any{"a": s, "b": []seal.Secret{s}})
	routes["xml"] = mustXML(t, element{s})
	var text bytes.Buffer
	if err := template.Must(template.New("").Parse("{{.}} {{printf \"%#v\" .}}")).Execute(&text, s); err != nil {
		t.Fatal(err)
	}
	routes["template"] = text.String()
	for name, h := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(h(&b)).With("w", s).Info("m", "secret", s, "pointer", &s, "struct", o, "struct_pointer", &o, "any", []any{s, o})
		slog.New(h(&b)).Info("m", slog.Group("g", "s", s, "o", o))
		routes[name] = b.String()
	}
	for name, out := range routes {
		if out == "" || strings.Contains(out, planted) || strings.Contains(out, fmt.Sprintf("%x", planted)) || strings.Contains(out, fmt.Sprintf("%X", planted)) {
			t.Errorf("%s: %q", name, strings.ReplaceAll(out, planted, "<THE SECRET>"))
		}
	}
	for _, name := range []string{"secret %v", "secret %#v", "secret %s", "secret %q", "json", "pointer %v"} {
		if !strings.Contains(routes[name], seal.Redacted) {
			t.Errorf("%s prints %q", name, routes[name])
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustXML(t *testing.T, v any) string {
	t.Helper()
	b, err := xml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSecret_revealEqualZero(t *testing.T) {
	s := seal.NewSecret(planted)
	if s.Reveal() != planted || s.IsZero() {
		t.Error("the value is lost")
	}
	if !s.Equal(seal.NewSecret(planted)) || s.Equal(seal.NewSecret(planted+"x")) || s.Equal(seal.Secret{}) {
		t.Error("Equal")
	}
	zero := seal.NewSecret("")
	if !zero.IsZero() || zero.Reveal() != "" || !zero.Equal(seal.Secret{}) || zero.String() != seal.Redacted {
		t.Error("the zero secret")
	}
}

func TestSecret_isReadFromJSON(t *testing.T) {
	var answer struct {
		AccessToken seal.Secret `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(`{"access_token":"`+planted+`"}`), &answer); err != nil || answer.AccessToken.Reveal() != planted {
		t.Errorf("read %v", err)
	}
}
