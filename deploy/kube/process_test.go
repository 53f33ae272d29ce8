package kube

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// run starts a program that an environment variable names, and stops it with the test. The channel has its end.
func run(t *testing.T, variable string, args ...string) <-chan error {
	t.Helper()
	program := os.Getenv(variable)
	if program == "" {
		t.Fatalf("%s must name a built program: run make test-kube", variable)
	}
	name, log := filepath.Base(program), &output{}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(2 * time.Minute):
			_ = cmd.Process.Kill()
			t.Errorf("%s did not stop within two minutes", name)
		}
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", name, log.end())
		}
	})
	return ended
}

// output keeps what a program says. It is safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) end() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.buf.String()
	return s[max(0, len(s)-8000):]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// freeAddress is one of this machine where nobody listens. Its port lies below those that the system gives to
// outgoing connections (32768 and above on Linux), so that between the look and its use nobody is given it by chance.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 200 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(12_000)))
		c, err := net.DialTimeout("tcp", address, time.Second)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return address
		}
		if err == nil {
			must(t, c.Close())
		}
	}
	t.Fatal("no free port was found")
	return ""
}

// eventually waits until what is wanted is so; until then, condition says what is there instead.
func eventually(t *testing.T, condition func() string) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		still := condition()
		if still == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("after three minutes: %s", still))
		}
		select {
		case <-t.Context().Done():
			t.Fatal(still)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
