package mirror

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
)

// Reasons of a deployment's failure that no API answer has.
const (
	ReasonRepositoryTooLarge = "REPOSITORY_TOO_LARGE"
	ReasonTreeRefused        = "TREE_REFUSED"
	ReasonDiskFull           = "DISK_FULL"
	ReasonGitFailed          = "GIT_FAILED"
)

// ErrDamaged says that the mirror lacks objects, or holds broken ones: discard it and fetch again.
var ErrDamaged = errors.New("mirror: damaged")

// Error is trouble with a repository, told in words for people.
type Error struct {
	Reason  string
	Message string
	// Temporary says that the same may work later without anybody doing anything about the
	// repository itself.
	Temporary bool
	// RetryAfter is the least pause before the next try; 0 when nobody asked for one.
	RetryAfter time.Duration
	Err        error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("mirror: %s: %v", e.Reason, e.Err)
	}
	return "mirror: " + e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// errRejected marks an answer 401 to a token that git presented.
var errRejected = errors.New("mirror: the token was rejected")

// errGone marks an answer that the repository is not reachable under its name.
var errGone = errors.New("mirror: repository not found")

// classify says what git's failure means. The texts are those of bitbucket.md section 8 and of git
// itself under LC_ALL=C; what no text explains is told by the HTTP status that git prints.
func classify(fullName, stderr string, cause error) *Error {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(stderr, p) {
				return true
			}
		}
		return false
	}
	e := &Error{Err: cause}
	said := remoteWords(stderr)
	set := func(reason apierr.Reason, temporary bool, message string) *Error {
		e.Reason, e.Temporary, e.Message = string(reason), temporary, message
		return e
	}
	switch {
	case has("fsck error in pack"):
		e.Reason, e.Message = ReasonTreeRefused, "The commit was not deployed: the repository holds an object that git refuses."
		if why := fsckWords(stderr); why != "" {
			e.Message = "The commit was not deployed: the repository holds an object that git refuses (" + why + ")."
		}
		return e
	case has("whitelist your IP", "enable two-step"):
		return set(apierr.ReasonAccessRestricted, false, fmt.Sprintf("Bitbucket refuses access to %s: %s Ask an admin of its Bitbucket workspace.", fullName, said))
	case has("lack one or more required privilege scopes"):
		return set(apierr.ReasonScopeMissing, false, "The connection lacks the scope \"repository\". Tick it on the OAuth consumer and connect again.")
	case has("Authentication failed", "could not read Username", "could not read Password", "returned error: 401"):
		e.Err = errors.Join(errRejected, cause)
		return set(apierr.ReasonTokenExpired, true, "Bitbucket did not accept the connection's token.")
	case has("returned error: 429", "Rate limit"):
		return set(apierr.ReasonBitbucketRateLimited, true, "Bitbucket limits how often we may ask; the deployment goes on when it lets us.")
	case has("returned error: 403"), has("not found") && has("fatal: repository"), has("returned error: 404", "returned error: 410"),
		has("either does not exist or you do not have access", "You may not have access to this repository"):
		e.Err = errors.Join(errGone, cause)
		return set(apierr.ReasonRepositoryNotFound, false, strings.TrimSpace(fmt.Sprintf("The connected account cannot reach %s: it was deleted, moved, or access was taken away. %s", fullName, said)))
	case has("couldn't find remote ref"):
		return set(apierr.ReasonBranchNotFound, false, "The branch does not exist on Bitbucket.")
	case has("returned error: 5", "Could not resolve host", "Failed to connect", "Connection refused", "Connection reset", "Connection timed out",
		"Operation too slow", "early EOF", "the remote end hung up", "unexpected disconnect", "RPC failed", "Empty reply from server",
		"SSL", "gnutls", "TLS", "Recv failure", "Send failure", "transfer closed", "unable to access", "expected flush after", "is this a git repository?", "dumb http transport"):
		return set(apierr.ReasonBitbucketUnavailable, true, "Bitbucket does not answer as it should; the deployment is tried again.")
	case has("No space left on device", "disk quota"):
		e.Reason, e.Temporary, e.Message = ReasonDiskFull, true, "The server's disk is full."
		return e
	}
	return nil
}

var fsckPattern = regexp.MustCompile(`(?m)^error: object [0-9a-f]{40}: ([A-Za-z]+: .*)$`)

// fsckWords is what git found wrong with an object.
func fsckWords(stderr string) string {
	m := fsckPattern.FindStringSubmatch(stderr)
	if m == nil {
		return ""
	}
	return clean(m[1])
}

// remoteWords is what the server said to people, masked by the caller, at most two lines.
func remoteWords(stderr string) string {
	var said []string
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "remote:"); ok && strings.TrimSpace(text) != "" && len(said) < 2 {
			said = append(said, strings.TrimSpace(text))
		}
	}
	s := strings.Join(said, " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
