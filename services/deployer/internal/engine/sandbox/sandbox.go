package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Network says what a hook can reach.
type Network int

const (
	// NetworkAuto is NetworkInternet where its programs are there and work, else NetworkNone.
	NetworkAuto Network = iota
	// NetworkInternet is the public internet over IPv4, without loopback, private networks and
	// the addresses of this machine.
	NetworkInternet
	// NetworkNone is nothing but the sandbox's own loopback.
	NetworkNone
)

// SandboxConfig says what a sandbox is made of. Its zero value is the usual one.
type SandboxConfig struct { //nolint:revive // Config alone would be the package's
	Network Network
	// Deny are networks that hooks must not reach beside the private ones and this machine's own
	// addresses, such as the public range of a data centre where databases listen.
	Deny []netip.Prefix
	// Allow are private networks that hooks may reach, such as the one of a package mirror. This
	// machine's own addresses stay denied.
	Allow []netip.Prefix
	// ReadOnly are more directories of this machine that hooks see, such as /opt/node.
	ReadOnly []string
	// Path is where hooks look for programs; empty means the usual directories below /usr.
	Path string
	// SilenceTimeout is how long a hook goes on while its worker stands still, in whole seconds; zero
	// means DefaultSilenceTimeout.
	SilenceTimeout time.Duration
}

func (c SandboxConfig) path() string {
	if c.Path == "" {
		return defaultPath
	}
	return c.Path
}

// Sandbox runs hooks under bubblewrap. It holds nothing between hooks.
type Sandbox struct {
	cfg     SandboxConfig
	bwrap   string
	system  []string // see system
	network Network
	tools   tools  // for NetworkInternet
	lacking string // why NetworkAuto became NetworkNone
	perUser bool   // see countsPerNamespace

	open bool // tests only: nothing is denied but the host's loopback
}

// advice is what to do where there is no sandbox.
const advice = "Install it (the package is called bubblewrap, version 0.8 or newer), or, while there is only one workspace and you trust all who can push, pass --allow-unsandboxed-hooks"

// NewSandbox makes sure, by running one command, that hooks can be sandboxed here. Its error says
// what is missing and what to do about it.
func NewSandbox(cfg SandboxConfig) (*Sandbox, error) {
	x := &Sandbox{cfg: cfg, network: NetworkNone, perUser: countsPerNamespace()}
	var err error
	if x.bwrap, err = exec.LookPath("bwrap"); err != nil {
		return nil, fmt.Errorf("hook: there is no bubblewrap (bwrap) on this machine. %s", advice)
	}
	if x.system, err = system(cfg.ReadOnly); err != nil {
		return nil, fmt.Errorf("hook: cannot show hooks the programs of this machine: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := x.probe(ctx); err != nil {
		return nil, fmt.Errorf("hook: bubblewrap does not work here: %w. It needs user namespaces: on Debian and Ubuntu look at the settings kernel.unprivileged_userns_clone (1) and kernel.apparmor_restrict_unprivileged_userns (0, or an AppArmor profile for bwrap); in a container, at its seccomp profile. %s", err, advice)
	}
	if cfg.Network == NetworkNone {
		return x, nil
	}
	if err = x.tools.find(); err == nil {
		err = openable(tunDevice)
	}
	if err == nil {
		x.network = NetworkInternet
		err = x.probe(ctx)
	}
	if err == nil {
		return x, nil
	}
	if cfg.Network == NetworkInternet {
		return nil, fmt.Errorf("hook: hooks cannot be given the internet without private networks: %w", err)
	}
	x.network, x.lacking = NetworkNone, err.Error()
	return x, nil
}

// probe runs a command that does nothing.
func (x *Sandbox) probe(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "devpilot-hook-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	said := &saying{}
	r, err := x.Run(ctx, Spec{Command: "true", Release: dir, Limits: Limits{Time: 10 * time.Second, DiskReserve: 1}}, said)
	if err == nil && !r.OK() {
		err = errors.New(r.Problem())
	}
	if err != nil && said.text != "" {
		err = fmt.Errorf("%w: %s", err, said.text)
	}
	return err
}

// saying keeps the first lines of a probe.
type saying struct{ text string }

func (s *saying) Line(_ Stream, text string) {
	if len(s.text) < 1000 {
		s.text = strings.TrimSpace(s.text + " " + text)
	}
}

// Describe implements Runner.
func (x *Sandbox) Describe() string {
	text := "in a sandbox (bubblewrap), without network"
	switch {
	case x.network == NetworkInternet:
		text = "in a sandbox (bubblewrap), with the public internet and without private networks"
	case x.lacking != "":
		text += ": " + x.lacking
	}
	if os.Geteuid() == 0 {
		text += "; this worker runs as root, an ordinary user would be safer"
	}
	return text
}

// Lacking is why hooks have no network here though they may have one; empty when there is nothing to
// be done.
func (x *Sandbox) Lacking() string { return x.lacking }

// Sandboxed implements Runner.
func (*Sandbox) Sandboxed() bool { return true }

// Run implements Runner.
func (x *Sandbox) Run(ctx context.Context, s Spec, out Sink) (Result, error) {
	s, err := s.check()
	if err != nil {
		return Result{}, err
	}
	for _, p := range append([]string{s.Release}, s.Shared...) {
		if err := placeable(p); err != nil {
			return Result{}, err
		}
	}
	if ctx.Err() != nil {
		return Result{Cancelled: true}, nil
	}
	b, err := x.prepare(ctx, s)
	if b != nil {
		defer b.close()
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return Result{Cancelled: true}, nil
	case err != nil:
		return Result{}, fmt.Errorf("%w: %w", ErrStart, err)
	}
	return b.run(ctx, s, out)
}

// prepare sets everything up, network and limits included; the command waits. On an error nothing
// is left running; the box, if any, is still to be closed.
func (x *Sandbox) prepare(ctx context.Context, s Spec) (*box, error) {
	b, status, err := x.start(s)
	if err != nil {
		return b, err
	}
	// The first document says who the first process is. It comes within milliseconds.
	var first struct {
		Child int `json:"child-pid"`
	}
	_ = status.SetReadDeadline(time.Now().Add(10 * time.Second))
	documents := json.NewDecoder(status)
	if err := documents.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("bubblewrap ended at once")
		}
		return b, b.abandon(err)
	}
	b.began = sync.OnceValue(func() bool {
		// bubblewrap tells the exit code of commands only, not of its own failures.
		var last struct {
			Code *int `json:"exit-code"`
		}
		_ = status.SetReadDeadline(time.Now().Add(time.Second))
		return documents.Decode(&last) == nil && last.Code != nil
	})
	if err := x.take(b, first.Child, s.Limits); err != nil {
		return b, b.abandon(err)
	}
	if x.network == NetworkInternet {
		n, err := x.connect(ctx, first.Child)
		b.later(n.close)
		if err != nil {
			return b, b.abandon(err)
		}
	}
	return b, nil
}

// start starts bubblewrap, which sets up the sandbox and waits.
func (x *Sandbox) start(s Spec) (_ *box, status *os.File, err error) {
	b := &box{silence: silenceTimeout(x.cfg.SilenceTimeout)}
	h := &handover{}
	defer h.close()
	pipe := func(of func() (r, w *os.File, err error)) (r, w *os.File) {
		if err == nil {
			r, w, err = of()
		}
		return r, w
	}
	statusRead, statusWrite := pipe(os.Pipe)
	blockRead, blockWrite := pipe(os.Pipe)
	gateRead, gateWrite := pipe(os.Pipe)
	outRead, outWrite := pipe(outputPipe)
	errRead, errWrite := pipe(outputPipe)
	if err != nil {
		for _, f := range []*os.File{statusRead, statusWrite, blockRead, blockWrite, gateRead, gateWrite, outRead, outWrite} {
			if f != nil {
				f.Close()
			}
		}
		return nil, nil, err
	}
	b.ends = []*os.File{blockWrite, gateWrite}
	for _, f := range []*os.File{statusRead, blockWrite, gateWrite} {
		b.later(func() { f.Close() })
	}
	for _, f := range []*os.File{outWrite, errWrite} {
		defer f.Close()
	}
	h.file(gateRead) // the first, as gate says
	args := []string{"--args", "", "--json-status-fd", h.file(statusWrite), "--block-fd", h.file(blockRead)}
	args[1] = h.text("arguments", strings.Join(x.arguments(s, h), "\x00")+"\x00")
	if h.err != nil {
		outRead.Close()
		errRead.Close()
		return b, nil, h.err
	}
	cmd := exec.Command(x.bwrap, append(args, append([]string{"--", "/bin/sh", "-c", gate, "hook"}, argv(s.Command, scriptPath)...)...)...) //nolint:noctx // it must end as box.end says, not by a bare kill
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = outWrite, errWrite, h.files
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0, Gid: uint32(os.Getegid())}} // without our supplementary groups
	}
	keepOwn()
	// Not killed by the kernel from its beginning: before it has let its first process go on, that one
	// would wait for ever. It asks for it itself after that, and what comes before ends at the gate.
	if b.process, err = keep(cmd); err != nil {
		outRead.Close()
		errRead.Close()
		return b, nil, err
	}
	b.stdout, b.stderr = outRead, errRead
	b.kill = func() { _ = b.cmd.Process.Kill() }
	b.begin = func() error {
		if err := b.guard(strconv.Itoa(b.group), b.group); err != nil {
			return err
		}
		if _, err := gateWrite.WriteString(word); err != nil {
			return err
		}
		_, err := blockWrite.Write([]byte{1})
		return err
	}
	return b, statusRead, nil
}

// take gets hold of the sandbox's first process: process 1 of its namespace, with which everything
// in it dies.
func (x *Sandbox) take(b *box, child int, l Limits) error {
	pidfd, err := unix.PidfdOpen(child, 0)
	if err != nil {
		return fmt.Errorf("first process of the sandbox: %w", err)
	}
	b.later(func() { _ = unix.Close(pidfd) })
	b.group = child
	b.kill = func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		_ = b.cmd.Process.Kill()
	}
	b.gone = func(wait time.Duration) error { return awaitExit(pidfd, wait) }
	root := "/proc/" + strconv.Itoa(child) + "/root"
	b.usage = func(full bool) (usage, error) { return insideUsage(root, full, l.Memory) }
	if err := setLimits(child, l); err != nil {
		return err
	}
	stepBack(child)
	return b.bound(child, l, x.perUser)
}

var errNotReady = errors.New("hook: the sandbox has no processes of its own yet")

// insideUsage measures a sandbox through its own /proc, which has its own processes only.
func insideUsage(root string, full bool, most int64) (usage, error) {
	var own, hosts unix.Stat_t
	dir := root + "/proc"
	if err := unix.Stat(dir, &own); err != nil {
		return usage{}, err
	}
	if err := unix.Stat("/proc", &hosts); err != nil {
		return usage{}, err
	}
	if own.Dev == hosts.Dev {
		return usage{}, errNotReady // it still sees the host's
	}
	pids, err := processes(dir)
	if err != nil {
		return usage{}, err
	}
	if !full {
		return usage{processes: len(pids)}, nil
	}
	scratch := usedSpace(root+"/tmp") + usedSpace(root+"/home") + usedSpace(root+"/dev/shm")
	u := measure(dir, pids, most-scratch)
	u.memory += scratch
	return u, nil
}
