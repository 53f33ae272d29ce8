package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/allinone"
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

	client *http.Client

	keysets func() (seal.Keysets, error) // of the program's services
	keys    func() (*identity.Keys, error)
	nats    *checkup.NATS                 // nil where the settings name none
	owner   func() (id string, err error) // the installation of the stores; see installation.Look
	running func() (bool, string)         // whether the program answers on this machine, and what it says
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
	if report.State == checkup.Failed || f.Strict && report.State == checkup.Warning {
		return CodeFailed
	}
	return CodeWell
}

func newExam(ctx context.Context, f *Flags, troubles []error, usable bool) *exam {
	x := &exam{flags: f, program: programs()[f.Service], troubles: troubles, usable: usable, client: checkup.NewClient()}
	f.OpsListen, f.Listen = cmp.Or(f.OpsListen, x.program.opsListen), cmp.Or(f.Listen, x.program.listen)
	if usable && f.Service == whole && f.BitbucketClientID == "" {
		x.askForEmulator(ctx)
	}
	if f.Emulator && usable {
		if err := f.UseOwnEmulator(); err != nil {
			x.troubles = append(x.troubles, err)
		}
	}
	x.keysets, x.keys = sync.OnceValues(x.loadKeysets), sync.OnceValues(x.loadKeys)
	if name, err := f.Name(); err == nil && !f.NATSURL.IsZero() {
		x.nats = f.ExaminedNATS(ctx, f.Service, name, allinone.NeededAtNATS(x.user(), name), x.client)
	}
	x.owner = sync.OnceValues(func() (string, error) { return x.lookForOwner(ctx) })
	x.running = sync.OnceValues(func() (bool, string) { return x.askProcess(ctx) })
	return x
}

// tasks are the checks of a program, in the order in which they are read.
func (x *exam) tasks() []checkup.Task {
	list := []checkup.Task{{Name: "settings", Run: x.settings}, {Name: "process", Run: x.process}}
	for _, t := range checkup.NATSTasks() {
		list = append(list, x.natsTask(t))
	}
	list = append(list,
		x.redisTask("redis", (*checkup.Redis).Reached), x.redisTask("redis-eviction", (*checkup.Redis).Eviction),
		checkup.Task{Name: "keyset", Run: x.checkKeyset}, checkup.Task{Name: "identity-keys", Run: x.checkKeys},
		checkup.Task{Name: "clock", Run: x.clock}, checkup.Task{Name: "public-url", Run: x.publicURL},
		checkup.Task{Name: "oauth-consumer", Run: x.oauth}, checkup.Task{Name: checkup.DeliveryName, Run: x.delivery},
		checkup.Task{Name: "git", Run: x.git}, checkup.Task{Name: "sandbox", Run: x.sandbox}, checkup.Task{Name: "disk", Run: x.disk},
	)
	if len(x.program.calls) == 0 {
		list = append(list, checkup.Task{Name: "services", Run: func(context.Context) checkup.Check { return x.noServices() }})
	}
	for _, name := range x.program.calls {
		list = append(list, checkup.Task{Name: "service-" + name, Run: func(ctx context.Context) checkup.Check { return x.service(ctx, name) }})
	}
	if x.usable {
		return list
	}
	for i := range list[1:] { // the first says why
		list[i+1].Run = func(context.Context) checkup.Check { return checkup.Skip("The settings cannot be read.") }
	}
	return list
}

// report makes all checks at once. tell, which is called by several goroutines in turn, hears which are not done yet.
func (x *exam) report(ctx context.Context, tell func(open []string, all int)) *Report {
	r := &Report{Program: x.flags.Service, Version: servicemain.Version, Time: time.Now().UTC()}
	r.Checks = checkup.Run(ctx, x.tasks(), checkup.How{
		Limit: x.flags.CheckTimeout, Late: "Look why it takes so long, or give it more time with --check-timeout.", Secrets: checkup.SecretsOf(x.flags), Tell: tell,
	})
	r.conclude()
	return r
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
