package remote

import (
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
)

// RateLimited is said where Bitbucket turns git or LFS away for a while.
const RateLimited = "Bitbucket limits how often we may ask; the deployment goes on when it lets us."

// NoBranch is said of a branch that Bitbucket does not list.
const NoBranch = "The branch does not exist on Bitbucket."

// BadName is the error of a repository's name that no address can be made of.
func BadName(cause error) *Error {
	return &Error{Reason: string(apierr.ReasonRepositoryNotFound), Message: "The repository's name is not one that Bitbucket gives.", Err: cause}
}

// TooManyFiles is the error of a commit with more files than are deployed.
func TooManyFiles(most int) *Error {
	return &Error{Reason: ReasonRepositoryTooLarge, Message: fmt.Sprintf("The commit has more than %d files.", most)}
}
