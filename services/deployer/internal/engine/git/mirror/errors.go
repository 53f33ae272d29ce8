package mirror

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
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
type Error = remote.Error

// errRejected marks an answer 401 to a token that git presented.
var errRejected = errors.New("mirror: the token was rejected")

// classify says what git's failure means. The texts are those of BITBUCKET.md#git-errors and of git
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
	case malformed.MatchString(stderr):
		e.Reason = ReasonTreeRefused
		e.Message = fmt.Sprintf("The commit was not deployed: the repository holds an object that git cannot read (%s).", clean(malformed.FindString(stderr)))
		return e
	case has("possible repository corruption on the remote side"):
		return set(ReasonGitFailed, true, "Bitbucket could not put the commit together: something in the repository is missing or damaged there. The deployment is tried again.")
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
		e.Err = errors.Join(remote.ErrGone, cause)
		return set(apierr.ReasonRepositoryNotFound, false, strings.TrimSpace(fmt.Sprintf("The connected account cannot reach %s: it was deleted, moved, or access was taken away. %s", fullName, said)))
	case has("not our ref"):
		return set(apierr.ReasonBitbucketUnavailable, true, "Bitbucket listed a commit and then did not send it: a force push may just have replaced it. The deployment is tried again.")
	case has("couldn't find remote ref"):
		return set(apierr.ReasonBranchNotFound, false, "The branch does not exist on Bitbucket.")
	case has("No space left on device", "disk quota"):
		e.Reason, e.Temporary, e.Message = ReasonDiskFull, true, "The server's disk is full."
		return e
	case has("returned error: 5", "Could not resolve host", "Failed to connect", "Connection refused", "Connection reset", "Connection timed out",
		"Operation too slow", "early EOF", "the remote end hung up", "unexpected disconnect", "RPC failed", "Empty reply from server",
		"SSL", "gnutls", "TLS", "Recv failure", "Send failure", "transfer closed", "unable to access", "expected flush after", "is this a git repository?", "dumb http transport"):
		return set(apierr.ReasonBitbucketUnavailable, true, "Bitbucket does not answer as it should; the deployment is tried again.")
	case has(noGit...):
		return set(apierr.ReasonBitbucketUnavailable, true, "Bitbucket's git server answers with something that is not git's protocol; the deployment is tried again.")
	}
	return nil
}

// malformed is what git says of an object that is none, whoever of the two ends noticed. Another copy
// of it would be no better.
var malformed = regexp.MustCompile(`too-short tree (object|file)|malformed mode in tree entry|empty filename in tree entry|bogus commit object|bad (parents|graft data|tree pointer) in commit`)

// noGit is what git says of an answer that breaks its protocol: a page of another kind, or one that was
// cut or garbled on its way.
var noGit = []string{
	"protocol error", "of length header were received", "invalid server response", "Could not read from remote repository", "unexpected flush", "invalid ls-refs response",
	"git fetch-pack: expected", "expected 'packfile'", "expected shallow/unshallow", "expected no other sections", "expected response end packet", "unknown response line",
	"invalid index-pack output", "bad band", "pack signature mismatch", "premature end of pack file", "pack is corrupted", "pack has bad object", "inflate returned", "bad pack header",
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

// ownWords is what git said itself, without what it passed on from the server.
func ownWords(stderr string) string {
	var own strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "remote:") {
			own.WriteString(line)
		}
	}
	return own.String()
}

// unreadable is what git says of an object in the mirror that it cannot read. Where it compares what
// arrives with that object, it goes on to say that the server's pack could not be taken, which is not
// the server's fault.
var unreadable = regexp.MustCompile(`(loose|packed) object [0-9a-f]{40} \(stored in .*\) is corrupt|cannot read existing object`)

// shortage is what git says when this machine has no more to give.
var shortage = []string{"Out of memory", "out of memory", "Cannot allocate memory", "Resource temporarily unavailable", "unable to create thread", "Too many open files", "died of signal 9"}

// ownTrouble explains a run of git that failed for lack of something on this machine; nil when it
// did not. The mirror is as good as before, and so is Bitbucket.
func ownTrouble(f *failure) *Error {
	own := ownWords(f.stderr)
	short := slices.ContainsFunc(shortage, func(s string) bool { return strings.Contains(own, s) })
	var exit *exec.ExitError
	if errors.As(f.err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			short = true
		}
	}
	if !short {
		return nil
	}
	return ownShortage(f)
}

func ownShortage(err error) *Error {
	return &Error{Reason: ReasonGitFailed, Temporary: true, Message: "The server was short of memory, processes or open files while git worked. The deployment is tried again.", Err: err}
}

// notStarted says that git could not even be started.
func notStarted(err error) error {
	return &Error{Reason: ReasonGitFailed, Temporary: true, Message: fmt.Sprintf("The server could not start the git program (%v). The deployment is tried again.", rootCause(err)), Err: err}
}

func rootCause(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

// damaged is what the failure of a run of git on local objects means: the mirror's damage, unless git
// says otherwise.
func damaged(err error) error {
	var f *failure
	if !errors.As(err, &f) || explained(err) {
		return err
	}
	if e := ownTrouble(f); e != nil {
		return e
	}
	return errors.Join(ErrDamaged, err)
}

// mendable tells whether a mirror that is made anew may help: git failed at it, for no cause that
// lies elsewhere. A limit of ours, or trouble of this machine, is no fault of the mirror's.
func mendable(err error) bool {
	var f *failure
	return err != nil && !explained(err) && !errors.Is(err, errOutput) && (errors.Is(err, ErrDamaged) || errors.As(err, &f))
}

// gitFailed is the error about a failure of git that a fresh mirror did not help against.
func gitFailed(err error) error {
	message := "git could not fetch the repository, and did not say why. The deployer's log has more."
	var f *failure
	if errors.As(err, &f) {
		if said := lastLine(f.stderr); said != "" {
			message = "git could not fetch the repository: " + said
		} else {
			message = fmt.Sprintf("git could not fetch the repository: it ended with %v and printed nothing.", f.err)
		}
	}
	return &Error{Reason: ReasonGitFailed, Message: message, Err: err}
}

// lastLine is the last word of a program, for people; empty when it said nothing.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return clean(lines[len(lines)-1])
}

func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
