package testkit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Clock is the wall clock of processes, which a test can set while they run. It works for programs that were built with
// ClockOverlay and started with its Env. What measures spans is not touched, as when a machine's clock is set.
type Clock struct {
	t    testing.TB
	file *os.File
}

const clockEnv = "TESTKIT_CLOCK"

// NewClock makes a clock that is right.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	file, err := os.Create(filepath.Join(FastDir(t), "clock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	c := &Clock{t, file}
	c.Set(0)
	return c
}

// Env is the variable that has a process use this clock.
func (c *Clock) Env() string { return clockEnv + "=" + c.file.Name() }

// Set sets the clock so many seconds ahead of the machine's, or behind it.
func (c *Clock) Set(ahead time.Duration) {
	c.t.Helper()
	if _, err := c.file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), 0); err != nil {
		c.t.Fatal(err)
	}
}

// clockSource is added to Go's package time: seconds that are added to the wall clock, read from memory that a test writes to.
const clockSource = `package time

import (
	"syscall"
	"unsafe"
)

var testAhead = clockAhead()

func clockAhead() *int64 {
	path, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return new(int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("time: " + path + ": " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("time: " + path + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&b[0]))
}
`

// ClockOverlay writes into dir what has programs obey a Clock, and returns the file for go build's -overlay. Go programs
// do not ask the C library for the time, so nothing can be put before it when they start.
func ClockOverlay(dir string) (overlay string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	library := filepath.Join(string(bytes.TrimSpace(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", err
	}
	now := []byte("func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n")
	if bytes.Count(source, now) != 1 {
		return "", errors.New("time.Now of this Go is written differently: ClockOverlay must learn it")
	}
	replaced := map[string]string{}
	for name, text := range map[string][]byte{
		"time.go":  bytes.Replace(source, now, append(now, "\tsec += *testAhead\n"...), 1),
		"ahead.go": []byte(clockSource),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", err
		}
		replaced[filepath.Join(library, name)] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}
