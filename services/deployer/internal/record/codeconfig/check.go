package codeconfig

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits, of the file and of an app's settings alike.
const (
	MaxHooks       = 50
	MaxName        = 64   // characters
	MaxCommand     = 8192 // characters
	MaxPriority    = 1000 // and -1000 at least
	DefaultTimeout = 10 * time.Minute
	MinTimeout     = time.Second
	MaxTimeout     = time.Hour
	MaxSharedPaths = 50
	MaxPath        = 255 // bytes
)

// The stages at which hooks run (DESIGN.md#words).
const (
	StagePreExecution      = "PRE_EXECUTION"
	StagePreSourceControl  = "PRE_SOURCE_CONTROL"
	StagePostSourceControl = "POST_SOURCE_CONTROL"
	StagePostSetup         = "POST_SETUP"
	StagePostRelease       = "POST_RELEASE"
)

// Stages are the stages at which hooks run, in order; FileStages those of them that the file may
// name, being known only once the source is there.
var (
	Stages     = []string{StagePreExecution, StagePreSourceControl, StagePostSourceControl, StagePostSetup, StagePostRelease}
	FileStages = Stages[2:]
)

// Hook is a deployment hook.
type Hook struct {
	Name     string
	Stage    string // one of Stages
	Command  string // for a shell; may have several lines
	Priority int32  // within a stage lower ones run first; the same in the order of the list
	Active   bool
	Timeout  time.Duration // whole seconds
}

// Serve says what of a release is served.
type Serve struct {
	Directory string // within the release, "." for all of it; nothing is served when empty
	Fallback  string // the file that stands in for paths that do not exist; may be empty
}

// The patterns of the schema, used here as well so that both agree.
var (
	namePattern    = regexp.MustCompile(`^[^\x00-\x20\x7f-\x9f](?:[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f])?$`)
	commandPattern = regexp.MustCompile(`^[^\x00]*[^\x00\s][^\x00]*$`)
	timeoutPattern = regexp.MustCompile(`^(?:(?:[1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2}|3600)s|(?:[1-9]|[1-5][0-9]|60)m|(?:[1-9]|[1-5][0-9])m(?:[1-9]|[1-5][0-9])s|1h)$`)
)

// HookFaults tells for each field of a hook, by its name in the API, why it cannot be saved.
func HookFaults(h Hook) iter.Seq2[string, error] {
	return faultsOf(
		fault{"name", checkName(h.Name)}, fault{"stage", checkStage(h.Stage)}, fault{"command", checkCommand(h.Command)},
		fault{"priority", checkPriority(int64(h.Priority))}, fault{"timeoutSeconds", checkTimeout(h.Timeout)},
	)
}

type fault struct {
	field string
	err   error // nil: none
}

func faultsOf(all ...fault) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, f := range all {
			if f.err != nil && !yield(f.field, f.err) {
				return
			}
		}
	}
}

// HookNameTaken is what is wrong with a hook whose name an earlier one has.
func HookNameTaken(name string) string {
	return "another hook is called " + quote(name) + ", and names tell hooks apart"
}

func checkName(name string) error {
	switch n := utf8.RuneCountInString(name); {
	case name == "":
		return errors.New("a hook needs a name")
	case n > MaxName:
		return fmt.Errorf("the name has %d characters, and at most %d are allowed", n, MaxName)
	case !utf8.ValidString(name) || !namePattern.MatchString(name):
		return errors.New("the name must be one line of text that neither begins nor ends with a space")
	}
	return nil
}

func checkStage(stage string) error {
	switch {
	case slices.Contains(Stages, stage):
		return nil
	case stage == "SOURCE_CONTROL" || stage == "RELEASE":
		return fmt.Errorf("no hooks run at the stage %s: use one of %s", stage, strings.Join(Stages, ", "))
	default:
		return fmt.Errorf("%q is not a stage at which hooks run: use one of %s", stage, strings.Join(Stages, ", "))
	}
}

func checkCommand(command string) error {
	switch n := utf8.RuneCountInString(command); {
	case n > MaxCommand:
		return fmt.Errorf("the command has %d characters, and at most %d are allowed; put a script into the repository instead", n, MaxCommand)
	case !utf8.ValidString(command) || strings.ContainsRune(command, 0):
		return errors.New("the command must be text without zero bytes")
	case !commandPattern.MatchString(command):
		return errors.New("the command is empty")
	}
	return nil
}

func checkPriority(p int64) error {
	if p < -MaxPriority || p > MaxPriority {
		return fmt.Errorf("the priority %d is not between %d and %d", p, -MaxPriority, MaxPriority)
	}
	return nil
}

func checkTimeout(d time.Duration) error {
	if d < MinTimeout || d > MaxTimeout || d%time.Second != 0 {
		return fmt.Errorf("the timeout must be whole seconds between %v and %v", MinTimeout, MaxTimeout)
	}
	return nil
}

// CheckDirectory refuses what is not a clean path to a directory within the repository.
func CheckDirectory(p string) error {
	if p == "." {
		return errors.New("leave it empty for the whole repository")
	}
	return checkRelative(p)
}

// CheckSharedPath refuses what is not a clean path within a release. A slash at the end says that
// it is a directory.
func CheckSharedPath(p string) error {
	if err := checkRelative(strings.TrimSuffix(p, "/")); err != nil {
		return err
	}
	if strings.TrimSuffix(p, "/") == "." {
		return errors.New("the whole release cannot be shared: name a path within it, such as uploads/")
	}
	return nil
}

// CheckSharedPathAmong refuses a bad path, one of the others, and one within another.
func CheckSharedPathAmong(p string, others []string) error {
	if err := CheckSharedPath(p); err != nil {
		return err
	}
	return overlap(p, others)
}

// overlap refuses a path that is another one's, or within it: a link cannot lie within a link.
func overlap(p string, others []string) error {
	a := strings.TrimSuffix(p, "/") + "/"
	for _, o := range others {
		switch b := strings.TrimSuffix(o, "/") + "/"; {
		case a == b:
			return fmt.Errorf("%q is there twice", p)
		case strings.HasPrefix(a, b), strings.HasPrefix(b, a):
			return fmt.Errorf("%q and %q overlap: share only the outer one", p, o)
		}
	}
	return nil
}

// ServeFaults tells for each field, by its name in the API, why it cannot be served. Nothing at all is fine.
func ServeFaults(s Serve) iter.Seq2[string, error] {
	if s == (Serve{}) {
		return faultsOf()
	}
	return faultsOf(fault{"directory", checkServeDirectory(s.Directory)}, fault{"fallback", checkFallback(s.Fallback)})
}

func checkServeDirectory(dir string) error {
	if dir == "" {
		return errors.New("the directory is missing: name the one to serve, such as dist, or . for the whole release")
	}
	if err := checkRelative(strings.TrimSuffix(dir, "/")); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	return nil
}

func checkFallback(file string) error {
	switch {
	case file == "":
		return nil
	case strings.HasSuffix(file, "/") || file == ".":
		return errors.New("fallback: name a file, such as index.html")
	}
	if err := checkRelative(file); err != nil {
		return fmt.Errorf("fallback: %w", err)
	}
	return nil
}

// checkRelative refuses a path that is not clean, or leads out of the release or into its .git.
func checkRelative(p string) error {
	switch {
	case p == "":
		return errors.New("the path is empty")
	case len(p) > MaxPath:
		return fmt.Errorf("the path has %d bytes, and at most %d are allowed", len(p), MaxPath)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return errors.New("the path has a control character or is not valid UTF-8")
	case strings.HasPrefix(p, "/"):
		return errors.New("the path begins with a slash: write it as seen from the release")
	case strings.Contains(p, `\`):
		return errors.New("the path has a backslash: write slashes")
	}
	for segment := range strings.SplitSeq(p, "/") {
		switch {
		case segment == "..":
			return errors.New("the path leads out of the release (..)")
		case strings.EqualFold(segment, ".git"):
			return errors.New("the path leads into .git, which is not part of a release")
		}
	}
	if path.Clean(p) != p {
		return fmt.Errorf("write %q", path.Clean(p))
	}
	return nil
}
