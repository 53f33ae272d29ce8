package dex

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// product is the built program, on this machine alone.
type product struct {
	t   *testing.T
	url string
	log *output
}

// startProduct starts the program that DEVPILOT_PROGRAM names, with these identity providers.
func startProduct(t *testing.T, address, providers string) *product {
	t.Helper()
	program := os.Getenv("DEVPILOT_PROGRAM")
	if program == "" {
		t.Fatal("DEVPILOT_PROGRAM must name the built devpilot: run make test-dex")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "providers.yaml")
	must(t, os.WriteFile(file, []byte(providers), 0o600))
	p := &product{t: t, url: "http://" + address, log: &output{}}
	ops := freeAddress(t)
	cmd := exec.Command(program, "--emulator", "--data-dir", filepath.Join(dir, "data"), "--listen", address, "--public-url", p.url,
		"--ops-listen", ops, "--emulator-listen", strings.Replace(freeAddress(t), "127.0.0.1", "localhost", 1), "--live-listen", freeAddress(t),
		"--identity-providers-file", file)
	for _, line := range os.Environ() {
		if !strings.HasPrefix(line, "DEVPILOT_") {
			cmd.Env = append(cmd.Env, line)
		}
	}
	cmd.Env = append(cmd.Env, "DEX_CLIENT_SECRET="+clientSecret)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Error("the product did not stop within a minute")
		}
		if t.Failed() {
			t.Logf("the end of the product's log:\n%s", p.log.end())
		}
	})
	eventually(t, func() string {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the product ended: %v", err)
		default:
		}
		resp, err := http.Get("http://" + ops + "/readyz")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return "the product is not ready: " + resp.Status
		}
		return ""
	})
	return p
}

// browser is a person at a browser, or a script where it has a token.
type browser struct {
	p     *product
	http  *http.Client
	token string
}

func (p *product) browser() *browser {
	jar, err := cookiejar.New(nil)
	must(p.t, err)
	return &browser{p: p, http: &http.Client{Jar: jar, Timeout: time.Minute}}
}

func (p *product) script(token string) *browser {
	b := p.browser()
	b.token = token
	return b
}

// page is what a browser shows.
type page struct {
	at     *url.URL
	status int
	text   string
}

func (b *browser) send(method, address, contentType, body string) page {
	b.p.t.Helper()
	req, err := http.NewRequestWithContext(b.p.t.Context(), method, address, strings.NewReader(body))
	must(b.p.t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if b.token != "" {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	resp, err := b.http.Do(req)
	must(b.p.t, err)
	defer resp.Body.Close()
	var text bytes.Buffer
	_, err = io.Copy(&text, resp.Body)
	must(b.p.t, err)
	return page{at: resp.Request.URL, status: resp.StatusCode, text: text.String()}
}

var (
	link = regexp.MustCompile(`(?s)<a href="([^"]*)"[^>]*>(.*?)</a>`)
	form = regexp.MustCompile(`<form method="post" action="([^"]*)">`)
)

// loginPage goes from the product's sign-in to dex's form for a name and a password.
func (b *browser) loginPage(way string) page {
	b.p.t.Helper()
	var out struct{ AuthorizeURL string }
	begun := b.send(http.MethodPost, b.p.url+"/sign-in/dex", "application/json", `{"next": "/v1/me"}`)
	must(b.p.t, json.Unmarshal([]byte(begun.text), &out))
	choice := b.send(http.MethodGet, out.AuthorizeURL, "", "")
	for _, found := range link.FindAllStringSubmatch(choice.text, -1) {
		if strings.Contains(found[2], way) {
			return b.send(http.MethodGet, choice.resolve(b.p.t, found[1]), "", "")
		}
	}
	b.p.t.Fatalf("dex shows no %q: %d %s", way, choice.status, choice.text)
	return page{}
}

func (g page) resolve(t *testing.T, reference string) string {
	t.Helper()
	u, err := g.at.Parse(html.UnescapeString(reference))
	must(t, err)
	return u.String()
}

// fill sends dex's form, and is where the browser ends up.
func (b *browser) fill(form page, name, word string) page {
	b.p.t.Helper()
	return b.send(http.MethodPost, form.action(b.p.t), "application/x-www-form-urlencoded", url.Values{"login": {name}, "password": {word}}.Encode())
}

func (g page) action(t *testing.T) string {
	t.Helper()
	found := form.FindStringSubmatch(g.text)
	if found == nil {
		t.Fatalf("there is no form: %d %s", g.status, g.text)
	}
	return g.resolve(t, found[1])
}

// signIn signs somebody in who must be let in.
func (b *browser) signIn(way, name string) {
	b.p.t.Helper()
	if at := b.fill(b.loginPage(way), name, password); at.status != http.StatusOK || at.at.String() != b.p.url+"/v1/me" {
		b.p.t.Fatalf("%s was not signed in: %d %s %s", name, at.status, at.at, at.text)
	}
}

// me is what the product says of who asks: a status, and the role in a workspace.
func (b *browser) me(workspace string) (status int, role string) {
	b.p.t.Helper()
	got := b.send(http.MethodGet, b.p.url+"/v1/me", "", "")
	var out struct{ Workspaces []struct{ ID, Role string } }
	must(b.p.t, json.Unmarshal([]byte(got.text), &out))
	for _, w := range out.Workspaces {
		if w.ID == workspace {
			role = w.Role
		}
	}
	return got.status, role
}

// becomes waits until the caller has the role, or none and is answered 401.
func (b *browser) becomes(role string) {
	b.p.t.Helper()
	eventually(b.p.t, func() string {
		status, has := b.me("acme")
		if has == role && (role != "") == (status == http.StatusOK) && (role != "" || status == http.StatusUnauthorized) {
			return ""
		}
		return fmt.Sprintf("%d %q, not %q", status, has, role)
	})
}

// is fails unless the caller has the role now.
func (b *browser) is(role string) {
	b.p.t.Helper()
	if status, has := b.me("acme"); status != http.StatusOK || has != role {
		b.p.t.Errorf("%d %q, not %q", status, has, role)
	}
}
