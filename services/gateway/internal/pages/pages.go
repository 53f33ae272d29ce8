// Package pages makes the few HTML pages that the gateway has without the console: sign-in, a plain
// home page, and messages. They are embedded, need no other file and work in light and dark.
//
// Each page allows, by their hashes, exactly its own style and script, and nothing from elsewhere.
//
// It depends on html/template only.
package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"devpilot.io/bitbucket/pkg/when"
)

//go:embed templates
var files embed.FS

// Pages renders the pages. It is immutable and safe for concurrent use.
type Pages struct {
	templates *template.Template
	policy    string
}

// New parses the templates.
func New() (*Pages, error) {
	style, err := files.ReadFile("templates/style.css")
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	script, err := files.ReadFile("templates/script.js")
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	t, err := template.New("").Funcs(template.FuncMap{
		"style":  func() template.CSS { return template.CSS(style) }, // our own file
		"script": func() template.JS { return template.JS(script) },  // our own file
		"when":   when.UTC,
		"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	return &Pages{templates: t, policy: fmt.Sprintf(
		"default-src 'none'; style-src '%s'; script-src '%s'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		hash(style), hash(script))}, nil
}

func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// write renders a page; one that cannot be is an error before the first byte.
func (p *Pages) write(w http.ResponseWriter, status int, name string, data any) error {
	var out bytes.Buffer
	if err := p.templates.ExecuteTemplate(&out, name, data); err != nil {
		return fmt.Errorf("pages: render %s: %w", name, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.policy)
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // a client that went away is no error of ours
	return nil
}

// SignIn is the sign-in page. Next is where the browser goes afterwards: a path of ours.
type SignIn struct {
	Next      string
	Providers []Provider
	// LocalOwner says that the admin token and one-time codes sign in.
	LocalOwner bool
}

// Provider is a button of the sign-in page.
type Provider struct{ ID, Name string }

// SignIn writes the page.
func (p *Pages) SignIn(w http.ResponseWriter, data SignIn) error {
	return p.write(w, http.StatusOK, "signin.html", data)
}

// Message is a page that says one thing.
type Message struct {
	Status    int
	Title     string
	Text      string
	Remedy    string
	Reason    string
	RequestID string
}

// Message writes the page.
func (p *Pages) Message(w http.ResponseWriter, m Message) error {
	return p.write(w, m.Status, "message.html", m)
}

// Home is the home page.
type Home struct {
	Label      string
	Emulator   bool
	Banner     *Banner
	Workspaces []HomeWorkspace
	// More says that not all workspaces are shown.
	More bool
}

// Banner says how a connect ended.
type Banner struct {
	Good bool
	Text string
}

// HomeWorkspace is one workspace on the home page.
type HomeWorkspace struct {
	ID, Name, Role string
	CanConnect     bool
	Integration    HomeIntegration
	Apps           []HomeApp
	AppsTrouble    string
	MoreApps       bool
}

// HomeIntegration is what a workspace is connected to.
type HomeIntegration struct {
	Trouble     string // it could not be read
	State       string // the API's word
	Label       string
	ConnectTime time.Time
	Problem     string // what is wrong with it, for people
	CallbackURL string
	// Configured says that there is an OAuth consumer.
	Configured bool
}

// Words for the state.
func (i HomeIntegration) Words() string {
	switch i.State {
	case "CONNECTED":
		return "Connected"
	case "REFRESH_FAILING":
		return "Connected, renewing its token fails for now"
	case "RECONNECT_REQUIRED":
		return "Must be connected again"
	}
	return "Not connected"
}

// Mark is the shape beside the words.
func (i HomeIntegration) Mark() string {
	switch i.State {
	case "CONNECTED":
		return "●"
	case "REFRESH_FAILING":
		return "◐"
	case "RECONNECT_REQUIRED":
		return "▲"
	}
	return "○"
}

// HomeApp is one app on the home page.
type HomeApp struct {
	ID, Repository, Branch string
	AutoDeploy             bool
	LiveNumber             int32
	LiveCommit             string
	LatestNumber           int32
	LatestState            string
}

// Home writes the page.
func (p *Pages) Home(w http.ResponseWriter, data Home) error {
	return p.write(w, http.StatusOK, "home.html", data)
}
