package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// traced makes of a program one whose system calls of some kinds are written to a file. The kernel stops
// the program for those calls only, so that it is hardly slower than it is.
func traced(b *testing.B, path string) (wrapper, calls string) {
	b.Helper()
	wrapper, calls = filepath.Join(b.TempDir(), "devpilot"), filepath.Join(b.TempDir(), "calls")
	script := fmt.Sprintf("#!/bin/sh\nexec strace -D -f -y -qq --seccomp-bpf -e trace=fsync,fdatasync,rename,renameat,renameat2,execve -e signal=none -o '%s' '%s' \"$@\"\n", calls, path)
	if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil { // it is to be run
		b.Fatal(err)
	}
	return wrapper, calls
}

// counted counts system calls of the product and the programs that it starts while fn runs.
func (p *timed) counted(fn func()) map[string]float64 {
	p.b.Helper()
	read := func() []byte {
		raw, err := os.ReadFile(p.calls)
		if err != nil {
			p.b.Fatal(err)
		}
		return raw
	}
	before := len(read())
	if before == 0 {
		p.b.Fatal("no system calls are written down")
	}
	fn()
	lines := read()[before:]
	if *speedPprof != "" {
		p.profiles++
		if err := os.WriteFile(p.profileName("calls"), lines, 0o600); err != nil {
			p.b.Fatal(err)
		}
	}
	counts := map[string]float64{}
	for line := range strings.Lines(string(lines)) {
		_, call, _ := strings.Cut(strings.TrimSpace(line), " ") // after the process
		name, _, begins := strings.Cut(strings.TrimSpace(call), "(")
		if !begins || strings.HasPrefix(name, "<") {
			continue // the end of a call that began on an earlier line
		}
		if name = strings.TrimRight(name, "at2"); name == "fdatasync" {
			name = "fsync"
		}
		counts[name]++
	}
	return counts
}

// writesOfADelivery counts how often the disk is asked to keep something, for each delivery.
func writesOfADelivery(p *timed) []figure {
	repo, _ := p.watched("web", 0)
	webhook, h := p.hook("web")
	const slow = 100
	seldom := p.counted(func() {
		for i, tick := 0, time.Tick(time.Second/20); i < slow; i++ {
			<-tick
			d := h
			d.body = padded(pushOf(repo, "unwatched", hashOf(i)))
			d.post(p.b)
		}
		p.decided(webhook, hashOf(slow-1))
	})
	var sent int64
	all := p.each(p.deliveries(h, repo, 1000, 10_000))
	loaded := p.counted(func() {
		sent = p.load(16, 5*time.Second, all).done
		h.body = pushOf(repo, "unwatched", hashOf(1<<30))
		h.post(p.b)
		p.decided(webhook, hashOf(1<<30))
	})
	return []figure{
		{"fsyncs of a delivery, 20/s", seldom["fsync"] / slow, "", "≤ 2"},
		{"… 16 connections", loaded["fsync"] / float64(sent), "", "≤ 0.1"},
	}
}

// writesOfAnApp counts the same for each app that is made, with all that follows from it.
func writesOfAnApp(p *timed) []figure {
	p.createApps(0, 2*appsPerRepository)
	p.quiet()
	const apps = 200
	counts := p.counted(func() {
		p.createApps(2*appsPerRepository, 2*appsPerRepository+apps)
		p.quiet()
	})
	return []figure{{"fsyncs of an app that is made, 8 callers", counts["fsync"] / apps, "", "fewer than before"}}
}

// stepsOfADeployment counts what a repeated deployment of 200 files asks of the system.
func stepsOfADeployment(p *timed) []figure {
	_, clone := p.watched("web", 200)
	const rounds = 5
	push := func(i int) {
		hash := clone.commit("index.html", fmt.Sprintf("push %d\n", i))
		clone.git("push", "--quiet", "origin", "HEAD:main")
		p.live("web", hash)
	}
	push(0)
	counts := p.counted(func() {
		for i := range rounds {
			push(i + 1)
		}
	})
	return []figure{
		{"repeat deployment of 200 files: fsync", counts["fsync"] / rounds, "", "≤ 25"},
		{"… rename", counts["rename"] / rounds, "", ""},
		{"… exec", counts["execve"] / rounds, "", ""},
	}
}

// ingestBesideWebhook compares with Debian's webhook that runs /bin/true for each delivery.
func ingestBesideWebhook(p *timed) []figure {
	repo, _ := p.watched("web", 0)
	_, h := p.hook("web")
	path, err := exec.LookPath("webhook")
	if err != nil {
		p.b.Fatalf("Debian's webhook is needed: %v", err)
	}
	config := filepath.Join(p.b.TempDir(), "hooks.json")
	rule := `"trigger-rule":{"match":{"type":"payload-hmac-sha256","secret":` + strconv.Quote(h.secret) + `,"parameter":{"source":"header","name":"X-Hub-Signature"}}}`
	text := `[{"id":"wait","execute-command":"/bin/true","include-command-output-in-response":true,` + rule + `},{"id":"first","execute-command":"/bin/true",` + rule + `}]`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		p.b.Fatal(err)
	}
	address := loopback(p.b)
	host, port, _ := strings.Cut(address, ":")
	cmd := exec.CommandContext(p.b.Context(), path, "-hooks", config, "-ip", host, "-port", port) // a package of the system
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	const waited, answered, stored = 2_000, 6_000, 12_000
	all := p.deliveries(h, repo, 0, stored)
	to := func(url string, n int) func() *http.Request {
		some := slices.Clone(all[:n])
		for i := range some {
			some[i].url = url
		}
		return p.each(some)
	}
	slowly, quickly, ourselves := to("http://"+address+"/hooks/wait", waited), to("http://"+address+"/hooks/first", answered), p.each(all)
	testkit.Eventually(p.b, timeout, func() error {
		resp, err := http.Get("http://" + address + "/hooks/first")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	})
	waiting := p.load(64, longest, slowly)
	first := p.load(64, longest, quickly)
	ours := p.load(64, longest, ourselves)
	return []figure{
		{"ingest beside Debian's webhook that waits for /bin/true", ours.rate() / waiting.rate(), "×", "≥ 6 ×"},
		{"… that answers first", ours.rate() / first.rate(), "×", "≥ 1.5 ×, durable"},
	}
}
