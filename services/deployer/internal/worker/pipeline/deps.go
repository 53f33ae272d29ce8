package pipeline

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Apps reads what people saved. An app that is gone is apierr's APP_NOT_FOUND.
type Apps interface {
	App(ctx context.Context, k lane.Key) (*storev1.App, error)
	// FullName is the repository's name as last seen; Renamed asks Bitbucket for today's.
	FullName(ctx context.Context, workspace, repository string) (string, error)
	Renamed(ctx context.Context, workspace, repository string) (string, error)
	// Variables opens the values for the hooks of a deployment of a branch, "" for that of a tag.
	Variables(a *storev1.App, branch string) ([]settings.Variable, error)
	// SawFile remembers what .devpilot.yaml said.
	SawFile(ctx context.Context, k lane.Key, generation int64, c *deployerv1.CodeConfig) error
}

// Source fetches repositories.
type Source interface {
	Fetch(ctx context.Context, src mirror.Source) (Tree, error)
	// Discard throws a damaged mirror away.
	Discard(ctx context.Context, workspace, repository string) error
}

// Tree is a commit that can be checked out.
type Tree interface {
	Head() mirror.Commit
	// Lacks tells whether it is known that the commit's history does not contain another commit.
	Lacks(ctx context.Context, commit string) bool
	Checkout(ctx context.Context, dir *os.Root, progress func(done, all int)) (tree.Stats, error)
	// Update makes a spare of the app this tree; tree.ErrPristine when it is of no use.
	Update(ctx context.Context, dir *os.Root, manifest []byte, progress func(done, all int)) (tree.Stats, error)
	// Copier writes the tree once more, also after Close; nil when that is not worth it.
	Copier() tree.Copier
	// HasLFSPointers tells whether files stand for others that Git LFS keeps elsewhere.
	HasLFSPointers(ctx context.Context) (bool, error)
	// WriteGit gives the tree a .git directory of its own.
	WriteGit(ctx context.Context, dir *os.Root) error
	Close()
}

// Releases is the server's data directory; see package release for the meaning of its errors.
type Releases interface {
	Claim(ctx context.Context, workspace, app string, epoch, first int64) error
	Current(workspace, app string) (string, error)
	Prepare(workspace, app, directory string) (*os.Root, error)
	// TakeSpare makes the app's spare the release directory; nil when there is none.
	TakeSpare(ctx context.Context, workspace, app string, epoch int64, directory string) (*os.Root, []byte, error)
	MakeSpare(ctx context.Context, workspace, app string, epoch int64, fill func(tree *os.Root) ([]byte, error)) error
	DropSpares(ctx context.Context) (int, error)
	Switch(ctx context.Context, workspace, app string, epoch int64, directory string) error
	Sweep(ctx context.Context, workspace, app string, epoch int64, keep []string) error
	Remove(ctx context.Context, workspace, app string, epoch int64) error
	// Has tells whether a release directory is there; Open opens it for reading, AbsPath is where
	// it is, and Scratch makes an empty directory for hooks before there is a release.
	Has(workspace, app, directory string) (bool, error)
	Open(workspace, app, directory string) (*os.Root, error)
	AbsPath(workspace, app, directory string) string
	Scratch(workspace, app, directory string) (string, error)
	// Shared links paths that outlive the release into it, and returns where they are.
	Shared(ctx context.Context, workspace, app, directory string, epoch int64, paths []string) ([]string, error)
}

// Log takes the lines of one attempt.
type Log interface {
	// Hide masks secrets, by name, in the lines that follow, and returns the names of those that
	// are too short to be masked.
	Hide(secrets map[string]seal.Secret) (unmasked []string)
	Line(stage deployerv1.Deployment_Stage, from deployerv1.LogRecord_Stream, text string)
	HookLine(stage deployerv1.Deployment_Stage, hook string, from deployerv1.LogRecord_Stream, text string)
	Close(ctx context.Context)
}

// Logs opens logs.
type Logs interface {
	Open(ctx context.Context, k lane.Key, number int32, generation, epoch int64) (Log, error)
}

// Records shows stages and progress; updates of an attempt that was replaced are dropped by fn.
type Records interface {
	Update(ctx context.Context, key string, fn func(*storev1.Deployment) (*storev1.Deployment, error)) (*storev1.Deployment, uint64, error)
}

// Watcher follows a lane: fn sees it as it is, then every change. It ends with ctx or fn's error.
type Watcher interface {
	Watch(ctx context.Context, key string, fn func(key string, l *storev1.Lane, rev uint64) error) error
}

// Alarm has a lane reconciled at a given time.
type Alarm interface {
	At(ctx context.Context, k lane.Key, at time.Time) error
}

// Observer hears how runs ended.
type Observer interface {
	Run(ctx context.Context, result string, took time.Duration)
	Live(ctx context.Context, sincePush time.Duration)
}

// Config is what a Worker needs.
type Config struct {
	Server  string
	Worker  string // its id, for people
	SiteURL string // commits link there
	Slots   int

	Dispatcher *lane.Dispatcher
	Apps       Apps
	Source     Source
	Releases   Releases
	// Announce has what serves releases know one before it is switched to; nil where nothing is served.
	Announce func(ctx context.Context, workspace, app string, epoch, generation int64, r release.SiteRelease) error
	Logs     Logs
	Records  Records
	Lanes    Watcher
	Alarm    Alarm
	Observe  Observer
	Tracer   trace.Tracer // records attempts; may be nil
	Logger   *slog.Logger
	Now      func() time.Time
	// Hooks runs deployment hooks; nil where this worker runs none, and NoHooks says why.
	Hooks   sandbox.Runner
	NoHooks string
	// AppDisk is what an app may take on the disk while a hook of it runs; see hook.Limits.
	AppDisk int64
	// DiskReserve is what a hook must leave free on the disk, in bytes; see hook.Limits.
	DiskReserve int64
	// Timeout bounds one attempt of a deployment, hooks included; 3 h when zero.
	Timeout time.Duration
	// Policy holds the app's rules against a head that the branch has moved on to; nil lets all through.
	Policy Policy
	// Witness is asked about failures that may be passing untruths, and Doubt is for how long they are
	// doubted; 3 min when zero.
	Witness Witness
	Doubt   time.Duration
	// Backoff is the pause after the nth failure in a row; DefaultBackoff of 30 s when nil.
	Backoff func(failures int32, reason string) time.Duration
	// ClaimTimeout bounds the wait for the app's directory; 20 s when zero.
	ClaimTimeout time.Duration
}

// Worker answers the wake-ups of one server. It is safe for concurrent use, one call per slot.
type Worker struct {
	cfg    Config
	busy   atomic.Int32
	spares *spares
}

// New makes a worker.
func New(cfg Config) *Worker {
	if cfg.Backoff == nil {
		cfg.Backoff = DefaultBackoff(30 * time.Second)
	}
	if cfg.Doubt == 0 {
		cfg.Doubt = 3 * time.Minute
	}
	if cfg.ClaimTimeout == 0 {
		cfg.ClaimTimeout = 20 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 3 * time.Hour
	}
	return &Worker{cfg: cfg, spares: newSpares()}
}

// Busy is how many deployments run now.
func (w *Worker) Busy() int32 { return w.busy.Load() }
