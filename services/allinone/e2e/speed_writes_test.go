package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// calls counts system calls of the product and the programs that it starts while fn runs. What is
// measured is slower meanwhile; the counts are right.
func (p *timed) calls(fn func()) map[string]float64 {
	p.b.Helper()
	out := filepath.Join(p.b.TempDir(), "calls")
	cmd := exec.CommandContext(p.b.Context(), "strace", "-f", "-c", "-o", out, "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,execve", //nolint:gosec // of our own program
		"-p", strconv.Itoa(p.daemon.cmd.Process.Pid))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		p.b.Fatalf("strace: %v", err)
	}
	testkit.Eventually(p.b, timeout, func() error { // until all threads are watched
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.daemon.cmd.Process.Pid))
		if err == nil && strings.Contains(string(raw), "TracerPid:\t0\n") {
			return fmt.Errorf("not watched: %s", said.String())
		}
		return err
	})
	fn()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		p.b.Fatal(err)
	}
	_ = cmd.Wait() // ended by the signal
	raw, err := os.ReadFile(out)
	if err != nil {
		p.b.Fatal(err)
	}
	counts := map[string]float64{}
	for scan := bufio.NewScanner(bytes.NewReader(raw)); scan.Scan(); {
		f := strings.Fields(scan.Text())
		if len(f) < 5 {
			continue
		}
		if n, err := strconv.ParseFloat(f[3], 64); err == nil {
			name := strings.TrimRight(f[len(f)-1], "at2")
			if name == "fdatasync" {
				name = "fsync"
			}
			counts[name] += n
		}
	}
	return counts
}

// writesOfADelivery counts how often the disk is asked to keep something, for each delivery.
func writesOfADelivery(p *timed) []figure {
	repo, _ := p.watched("web", 0)
	webhook, h := p.hook("web")
	const slow = 100
	seldom := p.calls(func() {
		for i, tick := 0, time.Tick(time.Second/20); i < slow; i++ {
			<-tick
			d := h
			d.body = padded(pushOf(repo, "unwatched", hashOf(i)))
			d.post(p.b)
		}
		p.decided(webhook, hashOf(slow-1))
	})
	var sent int64
	loaded := p.calls(func() {
		sent = p.load(16, 5*time.Second, func(worker, i int) *http.Request {
			d := h
			d.body = padded(pushOf(repo, "unwatched", hashOf(worker<<20+i+1000)))
			return d.request(p.b)
		}).done
		h.body = pushOf(repo, "unwatched", hashOf(1<<30))
		h.post(p.b)
		p.decided(webhook, hashOf(1<<30))
	})
	return []figure{
		{"fsyncs of a delivery, 20/s", seldom["fsync"] / slow, "", "≤ 2"},
		{"… 16 connections", loaded["fsync"] / float64(sent), "", "≤ 0.1"},
	}
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
	counts := p.calls(func() {
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
	cmd := exec.CommandContext(p.b.Context(), path, "-hooks", config, "-ip", host, "-port", port) //nolint:gosec // a package of the system
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	request := func(url string) func(int, int) *http.Request {
		return func(worker, i int) *http.Request {
			d := h
			d.url, d.body = url, padded(pushOf(repo, "unwatched", hashOf(worker<<20+i)))
			return d.request(p.b)
		}
	}
	testkit.Eventually(p.b, timeout, func() error {
		resp, err := http.Get("http://" + address + "/hooks/first")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	})
	waiting := p.load(64, 3*time.Second, request("http://"+address+"/hooks/wait"))
	first := p.load(64, 3*time.Second, request("http://"+address+"/hooks/first"))
	ours := p.load(64, 3*time.Second, request(h.url))
	return []figure{
		{"ingest beside Debian's webhook that waits for /bin/true", ours.rate() / waiting.rate(), "×", "≥ 6 ×"},
		{"… that answers first", ours.rate() / first.rate(), "×", "≥ 1.5 ×, durable"},
	}
}
