package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
)

// The exit codes. They stay as they are.
const (
	CodeWell   = 0
	CodeFailed = 1
	CodeUsage  = 2
)

// exam is one run of the checks.
type exam struct {
	flags    *Flags
	program  program
	troubles []error // of the environment
	usable   bool    // the settings could be read

	monitorPort string // at which nats-server tells of itself, where it does
	client      *http.Client

	keysets func() (seal.Keysets, error) // of the program's services
	keys    func() (*identity.Keys, error)
	nats    func() (*connection, error)
	owner   func() (id string, err error) // the installation of the stores; see installation.Look
	running func() (bool, string)         // whether the program answers on this machine, and what it says
}

// task is a check that is to be made.
type task struct {
	name string
	run  func(ctx context.Context) Check
}

// Run checks and returns the exit code. It ends early when ctx does.
func Run(ctx context.Context, p servicemain.Process) int {
	f, troubles, usable, err := read(p)
	switch {
	case errors.Is(err, servicemain.ErrHelp):
		return CodeWell
	case err != nil:
		fmt.Fprintf(p.Stderr, "devpilot doctor: %v\n", err)
		return CodeUsage
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := newExam(ctx, f, troubles, usable)
	report := x.report(ctx, progress(p.Stderr))
	write := report.writeTable
	if f.Output == "json" {
		write = report.writeJSON
	}
	if err := write(p.Stdout); err != nil {
		fmt.Fprintf(p.Stderr, "devpilot doctor: %v\n", err)
		return CodeFailed
	}
	if report.State == Failed || f.Strict && report.State == Warning {
		return CodeFailed
	}
	return CodeWell
}

func newExam(ctx context.Context, f *Flags, troubles []error, usable bool) *exam {
	x := &exam{flags: f, program: programs()[f.Service], troubles: troubles, usable: usable, monitorPort: "8222"}
	f.OpsListen, f.Listen = cmp.Or(f.OpsListen, x.program.opsListen), cmp.Or(f.Listen, x.program.listen)
	// Bitbucket follows no redirect, so neither do we.
	x.client = &http.Client{Transport: bitbucket.NewTransport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if usable && f.Service == whole && f.BitbucketClientID == "" {
		x.askForEmulator(ctx)
	}
	if f.Emulator && usable {
		if err := f.UseOwnEmulator(); err != nil {
			x.troubles = append(x.troubles, err)
		}
	}
	x.keysets, x.keys = sync.OnceValues(x.loadKeysets), sync.OnceValues(x.loadKeys)
	x.nats = sync.OnceValues(func() (*connection, error) { return x.connect(ctx) })
	x.owner = sync.OnceValues(func() (string, error) { return x.lookForOwner(ctx) })
	x.running = sync.OnceValues(func() (bool, string) { return x.askProcess(ctx) })
	return x
}

// tasks are the checks of a program, in the order in which they are read.
func (x *exam) tasks() []task {
	list := []task{
		{"settings", x.settings}, {"process", x.process},
		{"nats", x.checkNATS}, {"nats-sync", x.sync}, {"nats-storage", x.storage}, {"nats-replicas", x.replicas}, {"nats-permissions", x.permissions},
		{"redis", x.redis}, {"redis-eviction", x.eviction},
		{"keyset", x.checkKeyset}, {"identity-keys", x.checkKeys},
		{"clock", x.clock}, {"public-url", x.publicURL}, {"oauth-consumer", x.oauth}, {"webhook-delivery", x.delivery},
		{"git", x.git}, {"sandbox", x.sandbox}, {"disk", x.disk},
	}
	if len(x.program.calls) == 0 {
		return append(list, task{"services", func(context.Context) Check { return x.noServices() }})
	}
	for _, name := range x.program.calls {
		list = append(list, task{"service-" + name, func(ctx context.Context) Check { return x.service(ctx, name) }})
	}
	return list
}

// report makes all checks at once. tell, which is called by several goroutines in turn, hears which are not done yet.
func (x *exam) report(ctx context.Context, tell func(open []string, all int)) *Report {
	r := &Report{Program: x.flags.Service, Version: servicemain.Version, Time: time.Now().UTC()}
	tasks := x.tasks()
	r.Checks = make([]Check, len(tasks))
	var open []string
	for _, t := range tasks {
		open = append(open, t.name)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	tell(open, len(tasks))
	for i, t := range tasks {
		all.Go(func() {
			c := x.one(ctx, t)
			mu.Lock()
			defer mu.Unlock()
			r.Checks[i] = c
			open = slices.DeleteFunc(open, func(name string) bool { return name == t.name })
			tell(open, len(tasks))
		})
	}
	all.Wait()
	r.conclude()
	return r
}

// one makes a check within its time, whether it keeps to that or not. What is said holds no secret.
func (x *exam) one(ctx context.Context, t task) Check {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, x.flags.CheckTimeout)
	defer cancel()
	done := make(chan Check, 1)
	go func() {
		if t.name != "settings" && !x.usable {
			done <- skipped("The settings cannot be read.")
			return
		}
		done <- t.run(ctx)
	}()
	var c Check
	select {
	case c = <-done:
	case <-ctx.Done():
		c = failed(fmt.Sprintf("It did not end within %s.", x.flags.CheckTimeout), "Look why it takes so long, or give it more time with --check-timeout.")
	}
	c.Name, c.DurationMillis = t.name, time.Since(began).Milliseconds()
	for _, secret := range x.flags.secrets() {
		c.Found, c.Remedy = strings.ReplaceAll(c.Found, secret, "[redacted]"), strings.ReplaceAll(c.Remedy, secret, "[redacted]")
	}
	return c
}

// secretParts are a secret and, of an URL that has passwords, those, or what stands for the user.
func secretParts(text string) (parts []string) {
	for one := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Scheme == "" || u.Host == "" {
			if one != "" {
				parts = append(parts, one)
			}
			continue
		}
		for name, values := range u.Query() {
			for _, value := range values {
				if strings.HasSuffix(name, "password") && value != "" {
					parts = append(parts, value, url.QueryEscape(value))
				}
			}
		}
		if password, has := u.User.Password(); has && password != "" {
			parts = append(parts, password, url.PathEscape(password))
		} else if u.User.Username() != "" {
			parts = append(parts, u.User.Username()) // a token
		}
	}
	return parts
}

// progress says on a terminal what is still being checked.
func progress(w io.Writer) func(open []string, all int) {
	file, isFile := w.(*os.File)
	if !isFile || !isatty.IsTerminal(file.Fd()) {
		return func([]string, int) {}
	}
	return func(open []string, all int) {
		const clear = "\r\x1b[K"
		if len(open) == 0 {
			fmt.Fprint(w, clear)
			return
		}
		text := strings.Join(open, ", ")
		fmt.Fprintf(w, "%s%d of %d checked, waiting for %.50s", clear, all-len(open), all, text)
	}
}
