package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// TestDevpilot_halfSentRequests holds 3,000 half-sent requests against a process that may open 700
// files: deliveries, the API, served pages and probes go on.
func TestDevpilot_halfSentRequests(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testkit.FastDir(t), "data")
	_, port, _ := strings.Cut(loopback(t), ":")
	d, address := startDaemon(t, dir, "DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=localhost:"+port)
	d.terminate()
	d.files = 700 // from the start: the bounds follow it
	d.start()
	browser := newBrowser(t, address)
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	browser.signIn(strings.TrimSpace(string(token)))
	browser.connect("default", "grant")
	n := &tenant{shared: &shared{stack: &outside{daemon: d, address: address}}, t: t, api: browser, workspace: "default"}
	n.app("web", repository{name: "acme/web", id: emulator.SeededUUID("repository", "acme/web")}, "main")
	targets := []string{strings.TrimPrefix(address, "http://"), strings.TrimPrefix(d.ops, "http://")}
	held := make([]net.Conn, 0, 3000)
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	halves := []string{
		"POST /v1/session HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"tok",
		"POST /webhooks/bitbucket/none HTTP/1.1\r\nHost: %s\r\nContent-Length: 5000\r\n\r\n{",
		"GET /readyz HTTP/1.1\r\nHost: %s\r\nX-",
	}
	for i := range cap(held) {
		target := targets[i%len(targets)]
		c, err := net.DialTimeout("tcp", target, 30*time.Second)
		if err != nil {
			t.Fatalf("after %d halves %s takes no connection: %v", i, target, err)
		}
		held = append(held, c)
		// A connection that was given up for another is the point.
		_, _ = fmt.Fprintf(c, halves[i%len(halves)], target)
		if i%500 == 499 {
			for _, url := range []string{address + "/v1/info", d.ops + "/readyz"} {
				resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}).Get(url)
				if err != nil {
					t.Fatalf("beside %d halves: %v", i+1, err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Fatalf("beside %d halves %s: %s", i+1, url, resp.Status)
				}
			}
		}
	}
	hash, err := emulator.NewControl("http://localhost:"+port).Commit(t.Context(), "acme/web", "main", "pushed", map[string]string{"index.html": "1\n"})
	if err != nil {
		t.Fatal(err)
	}
	n.live("web", hash)
	if trigger := n.deployments("web")[0]["trigger"]; trigger != "PUSH" {
		t.Errorf("the push was found as %v, not delivered", trigger)
	}
}
