package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/when"
	"devpilot.io/bitbucket/services/allinone"
	"devpilot.io/bitbucket/services/deployer"
)

// Stores say which installation is meant. To embed in a kong struct.
type Stores struct {
	servicemain.InstallationFlags `embed:""`
	servicemain.StoreFlags        `embed:""`
	servicemain.PlaintextFlags    `embed:""`

	Output string `name:"output" short:"o" default:"table" enum:"table,json" help:"Sentences and a table, or json for programs."`
}

// ListSettings are those of `devpilot servers`. To embed in a kong struct.
type ListSettings struct {
	Stores `embed:""`
}

// MoveSettings are those of `devpilot servers move`. To embed in a kong struct.
type MoveSettings struct {
	Stores `embed:""`

	From        string `arg:"" help:"Server that died."`
	To          string `name:"to" required:"" help:"Server that its apps go to. A worker of it must run."`
	Workspace   string `name:"workspace" help:"Workspace whose apps are moved; all where none is named."`
	DryRun      bool   `name:"dry-run" help:"Say what would be moved, and move nothing."`
	EvenIfAlive bool   `name:"even-if-alive" help:"Also where workers of the server are heard: they are left while they live."`
}

// open reaches the deployer's records as the operator's user of NATS.
func (f Stores) open(ctx context.Context, p servicemain.Process) (*deployer.Servers, func(), error) {
	name, err := f.Name()
	if err := errors.Join(err, f.CheckStores(f.StoreFlags)); err != nil {
		return nil, nil, err
	}
	if f.NATSURL.IsZero() {
		return nil, nil, errors.New("no NATS is named (DEVPILOT_NATS_URL). Devpilot as one program has one server, in its own data directory, and nothing can be moved away from it")
	}
	options, err := f.NATSOptions()
	if err != nil {
		return nil, nil, err
	}
	const program = "devpilot-servers"
	nc, js, err := stream.Connect(f.NATSURL.Reveal(), program, append(options, name.ConnectOptions(program, allinone.Operator)...)...)
	if err != nil {
		return nil, nil, servicemain.NATSTrouble(err)
	}
	settings := stream.Settings{Installation: name, Replicas: f.Replicas, Bytes: f.StreamsMiB << 20}
	if settings.Bytes == 0 {
		settings.Bytes, settings.Fitted = stream.LeastBytes, true // what there is keeps its size
	}
	log := slog.New(slog.NewTextHandler(p.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := deployer.OpenServers(ctx, kv.NewSession(js, settings), log)
	if errors.Is(err, deployer.ErrNoStores) {
		err = fmt.Errorf("%w: look whether DEVPILOT_NATS_URL and DEVPILOT_INSTALLATION are those of the services", err)
	}
	if err != nil {
		nc.Close()
		return nil, nil, trouble(err)
	}
	return s, nc.Close, nil
}

// trouble says what to do about an answer of NATS, where that is known.
func trouble(err error) error {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders), errors.Is(err, kv.ErrUnavailable):
		return fmt.Errorf("NATS did not do that: look whether its servers are well, and whether this is the user operator of devpilot nats-permissions (deploy/OPERATIONS.md), and run the command again: %w", err)
	}
	return err
}

// List is `devpilot servers`.
func List(ctx context.Context, p servicemain.Process, f ListSettings) error {
	s, done, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	all, err := s.List(ctx)
	if err != nil {
		return trouble(err)
	}
	if f.Output == "json" {
		return writeJSON(p.Stdout, map[string]any{"servers": all})
	}
	return table(p.Stdout, all, time.Now())
}

func table(out io.Writer, all []deployer.ServerStatus, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVER\tWORKERS\tLAST HEARD\tAPPS\tLIVE\tUNFINISHED\tDISK FREE")
	for _, s := range all {
		heard, disk := "not within an hour", "not known"
		if s.LastHeard != nil {
			heard = when.Took(max(now.Sub(*s.LastHeard), 0)) + " ago"
		}
		if s.DiskFreeMiB != nil {
			disk = strconv.Itoa(int(*s.DiskFreeMiB)) + " MiB"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%s\n", s.Name, s.Workers, heard, s.Apps, s.Live, s.Unfinished, disk)
	}
	return w.Flush()
}

// movedReport is what a move says to programs; fields are added and never renamed.
type movedReport struct {
	From   string              `json:"from"`
	To     string              `json:"to"`
	DryRun bool                `json:"dryRun"`
	Apps   []deployer.MovedApp `json:"apps"`
}

// Move is `devpilot servers move`.
func Move(ctx context.Context, p servicemain.Process, f MoveSettings) error {
	s, done, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	report := movedReport{From: f.From, To: f.To, DryRun: f.DryRun, Apps: []deployer.MovedApp{}}
	mv := deployer.Move{From: f.From, To: f.To, Workspace: f.Workspace, DryRun: f.DryRun, EvenIfAlive: f.EvenIfAlive}
	err = s.Move(ctx, mv, func(which, all int, a deployer.MovedApp) {
		report.Apps = append(report.Apps, a)
		if f.Output != "json" {
			fmt.Fprintf(p.Stdout, "%d of %d: %s/%s: %s\n", which, all, a.Workspace, a.App, sentence(a, f.From))
		}
	})
	if err = trouble(err); err != nil && len(report.Apps) > 0 {
		err = fmt.Errorf("%w. %d apps are moved: run the command again, and it goes on with the others", err, len(report.Apps))
	}
	if f.Output == "json" {
		return errors.Join(err, writeJSON(p.Stdout, report))
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.Stdout, conclusion(report, f.Workspace))
	return err
}

// sentence says what became of an app.
func sentence(a deployer.MovedApp, from string) string {
	text := "is deployed on " + a.To + " from now on"
	if a.Left {
		text = "would be deployed on " + a.To
	}
	if a.Again != 0 {
		text += fmt.Sprintf("; what was live is deployed again as #%d", a.Again)
	} else if a.TakenBack == 0 && a.Waiting == 0 {
		text += "; nothing was live on " + from
	}
	if a.TakenBack != 0 {
		text += fmt.Sprintf("; #%d, which ran, is taken back", a.TakenBack)
	}
	if a.Waiting != 0 {
		text += fmt.Sprintf("; #%d, which waited, goes there", a.Waiting)
	}
	if a.Undecided != 0 {
		text += fmt.Sprintf("; pushes to be decided about there: %d", a.Undecided)
	}
	return text + "."
}

func conclusion(r movedReport, workspace string) string {
	again := 0
	for _, a := range r.Apps {
		if a.Again != 0 {
			again++
		}
	}
	switch {
	case len(r.Apps) == 0 && workspace != "":
		return fmt.Sprintf("No app of workspace %s is on server %s, and none has anything there: nothing is to be moved.", workspace, r.From)
	case len(r.Apps) == 0:
		return fmt.Sprintf("No app is on server %s, and none has anything there: nothing is to be moved.", r.From)
	case r.DryRun:
		return fmt.Sprintf("%d apps would be moved from %s to %s, and %d of them deployed again. Nothing was changed.", len(r.Apps), r.From, r.To, again)
	}
	return fmt.Sprintf("%d apps are moved from %s to %s; %d of them are deployed again now, and are served as soon as that is done.\n"+
		"Should %s come back, its workers serve and deploy none of these apps. Their releases and shared files stay on its disk until the apps are deleted.",
		len(r.Apps), r.From, r.To, again, r.From)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
