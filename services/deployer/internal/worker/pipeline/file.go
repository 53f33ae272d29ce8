package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// readFile reads the release's own .devpilot.yaml, where the app lets it count, and works out what
// the deployment does from here on. It is read from the release, so that a rollback does what its
// release says.
func (a *attempt) readFile(ctx context.Context) error {
	a.settings = settings.Of(a.app)
	if !a.app.GetConfigAsCode() {
		return nil
	}
	name := settings.FileOf(a.app)
	dir, err := a.w.cfg.Releases.Open(a.key.Workspace, a.key.App, a.directory)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	ignored := lookAlike(dir, path.Dir(name))
	if ignored != "" {
		a.say("%s does not count: the file has to be called %s. Rename it.", ignored, codeconfig.FileName)
	}
	b, err := readRegular(dir, name, codeconfig.MaxSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		return a.w.cfg.Apps.SawFile(ctx, a.key, a.generation, &deployerv1.CodeConfig{Path: name, Commit: a.commit, IgnoredPath: ignored})
	}
	if err != nil {
		return &failedHook{reason: "CODE_CONFIG_INVALID", message: fmt.Sprintf("%s could not be read: it must be an ordinary file.", name), err: err}
	}
	f, perr := codeconfig.Parse(name, b)
	seen := settings.Describe(name, a.commit, f, perr)
	seen.IgnoredPath = ignored
	if err := a.w.cfg.Apps.SawFile(ctx, a.key, a.generation, seen); err != nil {
		return err
	}
	if perr != nil {
		for line := range strings.SplitSeq(perr.Error(), "\n") {
			a.say("%s", line)
		}
		first, _, _ := strings.Cut(perr.Error(), "\n")
		return &failedHook{reason: "CODE_CONFIG_INVALID", message: first, err: perr}
	}
	a.settings = settings.Effective(a.app, f)
	if f.Sets(codeconfig.FieldServe) {
		a.serve = &deployerv1.ServeOptions{Directory: f.Settings.Serve.Directory, Fallback: f.Settings.Serve.Fallback}
	}
	if f.Sets(codeconfig.FieldSharedPaths) {
		a.shares = &storev1.SharedPaths{Paths: f.Settings.SharedPaths}
	}
	a.say("%s sets %s.", name, words(f.Fields()))
	return nil
}

// lookAlike is a file in a directory of the release that was likely meant to be .devpilot.yaml; empty
// when there is none. A volume that ignores case has only one of them.
func lookAlike(dir *os.Root, in string) string {
	for _, name := range codeconfig.LookAlikes() {
		p := path.Join(in, name)
		found, err := dir.Lstat(p)
		if err != nil || found.IsDir() {
			continue
		}
		if right, err := dir.Lstat(path.Join(in, codeconfig.FileName)); err == nil && os.SameFile(found, right) {
			continue
		}
		return p
	}
	return ""
}

func words(fields []codeconfig.Field) string {
	if len(fields) == 0 {
		return "nothing"
	}
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = string(f)
	}
	return strings.Join(out, ", ")
}

// readRegular reads an ordinary file. A hook may have put something else in its place: no link is
// followed out of the release, and no pipe is waited for.
func readRegular(dir *os.Root, name string, most int64) ([]byte, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("pipeline: %s is no ordinary file", name)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// maxHeaders is more than a _headers file may have.
const maxHeaders = 256 << 10

// checkHeaders tells what of the release's _headers file will not count where it is served.
func (a *attempt) checkHeaders() {
	directory := a.app.GetServe().GetDirectory()
	if a.serve != nil {
		directory = a.serve.GetDirectory()
	}
	if directory == "" {
		return
	}
	dir, err := a.w.cfg.Releases.Open(a.key.Workspace, a.key.App, a.directory)
	if err != nil {
		return // the switch will say so
	}
	defer func() { _ = dir.Close() }()
	if info, err := dir.Stat(path.Clean(directory)); err != nil || !info.IsDir() {
		a.say("There is no directory %s in the release: nothing will be served.", directory)
		return
	}
	b, err := readRegular(dir, path.Join(directory, "_headers"), maxHeaders)
	if err != nil {
		return // there is none, or none that is served
	}
	for i, p := range hosting.CheckHeaders(bytes.NewReader(b)) {
		if i == 10 {
			a.say("_headers has more problems.")
			break
		}
		a.say("_headers, line %d: %s", p.Line, p.Message)
	}
}
