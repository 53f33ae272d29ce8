package hosting

import (
	"context"
	"errors"
	"os"
)

// What a Sites answers, wrapped or not, when there is nothing to serve.
var (
	// ErrNotFound: there is no such workspace or app, or nothing of it is live yet.
	ErrNotFound = errors.New("live: no such site")
	// ErrNotServed: the app has no serve.directory. Visitors cannot tell it from ErrNotFound.
	ErrNotServed = errors.New("live: the app is not served")
	// ErrGone: the app is served, and the release asked for is not kept.
	ErrGone = errors.New("live: the release is not kept")
	// ErrMoving: the server that had the live release died, and it is deployed on another one at the moment.
	ErrMoving = errors.New("live: the site moves to another server")
)

// Sites finds what a host name serves. It is called once per request, concurrently, and should not
// remember an answer for longer than a second: a rollback must be visible at once.
type Sites interface {
	// Site returns the kept release of that number, or the live one for number 0. Errors are ErrNotFound,
	// ErrNotServed, ErrGone and ErrMoving; any other is answered with 503 and logged.
	Site(ctx context.Context, workspace, app string, number int32) (Site, error)
}

// Site is a release that may be served.
type Site struct {
	// Release is the release's directory.
	Release *os.Root
	// Directory is the app's serve.directory: relative, slash-separated, "." (or empty) for the whole release.
	Directory string
	// Version identifies the release's tree: its directory name and commit. It is part of the ETags of
	// files too large to be digested.
	Version string
	// Number is the release's number, shown in the header X-Devpilot-Release; 0 hides it.
	Number int32
	// Live tells that this is the live release under the app's own name; else it is a numbered one, which
	// search engines are asked to leave alone.
	Live bool
	// Fallback is a file, relative to Directory, served with status 200 for paths that do not exist
	// (single-page applications); empty: none. Paths that look like a known kind of file (app.js) are
	// still 404, so that a page never takes the place of a missing script.
	Fallback string
	// Shared are the app's shared directories that count in this release.
	Shared Shared
	// Done is called once, when the request needs Release no more. nil: Release is closed.
	Done func()
}

// Shared are directories of an app that outlive its releases and stand in each by a link.
type Shared struct {
	// Links has, by the place of a shared directory in the release (slash-separated, clean), what the link
	// there has to say. A link that says anything else leads nowhere.
	Links map[string]string
	// Open opens the directory below which the shared directories lie, by the same names. It is called only
	// when a visitor asks for something shared; the caller closes what it returns. An error that is
	// fs.ErrNotExist says that there is none.
	Open func() (*os.Root, error)
}

func (s *Site) close() {
	switch {
	case s.Done != nil:
		s.Done()
	case s.Release != nil:
		_ = s.Release.Close()
	}
}
