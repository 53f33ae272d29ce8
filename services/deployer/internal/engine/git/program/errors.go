package program

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

// ErrDamaged says that the mirror lacks objects, or holds broken ones: discard it and fetch again.
var ErrDamaged = errors.New("program: damaged")

// Explain turns a failed run into an *Error where its cause is known.
func Explain(fullName string, err error) error {
	if errors.Is(err, ErrOutput) {
		return &remote.Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "The git server answered with more than was asked for.", Err: err}
	}
	var f *Failure
	if err == nil || !errors.As(err, &f) {
		return err
	}
	if e := ownTrouble(f); e != nil {
		return e
	}
	if unreadable.MatchString(ownWords(f.Stderr)) {
		return errors.Join(ErrDamaged, err)
	}
	if e := classify(fullName, f.Stderr, f); e != nil {
		if errors.Is(e, remote.ErrRejected) && !f.Asked {
			// The server wanted a credential and git never asked us for one: not this site.
			return &remote.Error{Reason: remote.ReasonGitFailed, Message: "The git server asked for a credential under another address than the configured site.", Err: err}
		}
		e.About = fullName
		if e.Reason == string(apierr.ReasonBitbucketRateLimited) || e.Reason == string(apierr.ReasonBitbucketUnavailable) {
			e.RetryAfter = f.Wait
		}
		return e
	}
	return err
}

// classify says what git's failure means. The texts are those of BITBUCKET.md#git-errors and of git
// itself under LC_ALL=C; what no text explains is told by the HTTP status that git prints.
func classify(fullName, stderr string, cause error) *remote.Error {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(stderr, p) {
				return true
			}
		}
		return false
	}
	e := &remote.Error{Err: cause}
	said := remoteWords(stderr)
	set := func(reason apierr.Reason, temporary bool, message string) *remote.Error {
		e.Reason, e.Temporary, e.Message = string(reason), temporary, message
		return e
	}
	switch {
	case malformed.MatchString(stderr):
		return notAnObject(stderr, cause)
	case has("possible repository corruption on the remote side"):
		return set(remote.ReasonGitFailed, true, "Bitbucket could not put the commit together: something in the repository is missing or damaged there. The deployment is tried again.")
	case has("whitelist your IP", "enable two-step"):
		return set(apierr.ReasonAccessRestricted, false, fmt.Sprintf("Bitbucket refuses access to %s: %s Ask an admin of its Bitbucket workspace.", fullName, said))
	case has("lack one or more required privilege scopes"):
		return set(apierr.ReasonScopeMissing, false, "The connection lacks the scope \"repository\". Tick it on the OAuth consumer and connect again.")
	case has("Authentication failed", "could not read Username", "could not read Password", "returned error: 401"):
		e.Err = errors.Join(remote.ErrRejected, cause)
		return set(apierr.ReasonTokenExpired, true, "Bitbucket did not accept the connection's token.")
	case has("returned error: 429", "Rate limit"):
		return set(apierr.ReasonBitbucketRateLimited, true, remote.RateLimited)
	case has("returned error: 403"), has("not found") && has("fatal: repository"), has("returned error: 404", "returned error: 410"),
		has("either does not exist or you do not have access", "You may not have access to this repository"):
		e.Err = errors.Join(remote.ErrGone, cause)
		return set(apierr.ReasonRepositoryNotFound, false, strings.TrimSpace(fmt.Sprintf("The connected account cannot reach %s: it was deleted, moved, or access was taken away. %s", fullName, said)))
	case has("not our ref"):
		return set(apierr.ReasonBitbucketUnavailable, true, "Bitbucket listed a commit and then did not send it: a force push may just have replaced it. The deployment is tried again.")
	case has("couldn't find remote ref"):
		return set(apierr.ReasonBranchNotFound, false, remote.NoBranch)
	case has("No space left on device", "disk quota"):
		e.Reason, e.Temporary, e.Message = remote.ReasonDiskFull, true, "The server's disk is full."
		return e
	case has("returned error: 5", "Could not resolve host", "Failed to connect", "Connection refused", "Connection reset", "Connection timed out",
		"Operation too slow", "early EOF", "the remote end hung up", "unexpected disconnect", "RPC failed", "Empty reply from server",
		"SSL", "gnutls", "TLS", "Recv failure", "Send failure", "transfer closed", "unable to access", "expected flush after", "is this a git repository?", "dumb http transport"):
		return set(apierr.ReasonBitbucketUnavailable, true, "Bitbucket does not answer as it should; Devpilot tries again.")
	case has(noGit...):
		return set(apierr.ReasonBitbucketUnavailable, true, "Bitbucket's git server answers with something that is not git's protocol; Devpilot tries again.")
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
func ownTrouble(f *Failure) *remote.Error {
	own := ownWords(f.Stderr)
	short := slices.ContainsFunc(shortage, func(s string) bool { return strings.Contains(own, s) })
	var exit *exec.ExitError
	if errors.As(f.Err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			short = true
		}
	}
	if !short {
		return nil
	}
	return OwnShortage(f)
}

// OwnShortage says that this machine had no more to give.
func OwnShortage(err error) *remote.Error {
	return &remote.Error{Reason: remote.ReasonGitFailed, Temporary: true, Message: "The server was short of memory, processes or open files while git worked. The deployment is tried again.", Err: err}
}

// notStarted says that git could not even be started.
func notStarted(err error) error {
	return &remote.Error{Reason: remote.ReasonGitFailed, Temporary: true, Message: fmt.Sprintf("The server could not start the git program (%v). The deployment is tried again.", rootCause(err)), Err: err}
}

func rootCause(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

// LocalFailure is what the failure of a run of git on local objects means: the mirror's damage, unless git
// says otherwise.
func LocalFailure(err error) error {
	var f *Failure
	if !errors.As(err, &f) || remote.Explained(err) {
		return err
	}
	if e := ownTrouble(f); e != nil {
		return e
	}
	if own := ownWords(f.Stderr); malformed.MatchString(own) && !unreadable.MatchString(own) {
		return notAnObject(own, err)
	}
	return errors.Join(ErrDamaged, err)
}

// notAnObject is the error about an object that is none, as it was sent: another copy would be no better.
func notAnObject(said string, err error) *remote.Error {
	return &remote.Error{
		Reason: remote.ReasonTreeRefused, Err: err,
		Message: fmt.Sprintf("The commit was not deployed: the repository holds an object that git cannot read (%s).", remote.OneLine(malformed.FindString(said))),
	}
}

// Mendable tells whether a mirror that is made anew may help: git failed at it, for no cause that
// lies elsewhere. A limit of ours, or trouble of this machine, is no fault of the mirror's.
func Mendable(err error) bool {
	var f *Failure
	return err != nil && !remote.Explained(err) && !errors.Is(err, ErrOutput) && (errors.Is(err, ErrDamaged) || errors.As(err, &f))
}

// Unexplained is the error about a failure of git that a fresh mirror did not help against.
func Unexplained(err error) error {
	message := "git could not fetch the repository, and did not say why. The deployer's log has more."
	var f *Failure
	if errors.As(err, &f) {
		if said := lastLine(f.Stderr); said != "" {
			message = "git could not fetch the repository: " + said
		} else {
			message = fmt.Sprintf("git could not fetch the repository: it ended with %v and printed nothing.", f.Err)
		}
	}
	return &remote.Error{Reason: remote.ReasonGitFailed, Message: message, Err: err}
}

// lastLine is the last word of a program, for people; empty when it said nothing.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return remote.OneLine(lines[len(lines)-1])
}
