package remote

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
)

// Reasons of a deployment's failure that no API answer has.
const (
	ReasonRepositoryTooLarge = "REPOSITORY_TOO_LARGE"
	ReasonTreeRefused        = "TREE_REFUSED"
	ReasonDiskFull           = "DISK_FULL"
	ReasonGitFailed          = "GIT_FAILED"
	ReasonTagNotFound        = "TAG_NOT_FOUND"
	ReasonCommitNotInBranch  = "COMMIT_NOT_IN_BRANCH"
	ReasonCommitGone         = "COMMIT_GONE"
	ReasonFileTooLarge       = "FILE_TOO_LARGE"    // of a file that is larger than the caller reads
	ReasonSubmoduleRefused   = "SUBMODULE_REFUSED" // of a submodule that is not fetched
	ReasonLFSFailed          = "LFS_FAILED"        // of content that LFS should have and does not give
)

// AsError is the error for people in another; false where there is none.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Explained tells whether an error has words for people.
func Explained(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// HasReason tells whether an error for people has the reason.
func HasReason(err error, reason string) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == reason
}

// Unreachable is trouble with the network. The address may be a signed one: it stays out.
func Unreachable(whom string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: whom + " does not answer as it should; Devpilot tries again.", Err: err}
}

// Bytes is a number of bytes for people.
func Bytes(n int64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	case n >= 1<<10:
		return strconv.FormatInt(n>>10, 10) + " KiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// OneLine makes another's text fit for people: one line, not too long.
func OneLine(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
