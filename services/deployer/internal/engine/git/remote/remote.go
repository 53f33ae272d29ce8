package remote

import (
	"errors"
	"fmt"
	"time"
)

// Wanted says which branches and tags are asked for: nil for none of the kind. The functions are
// called with each name once, by one goroutine at a time; a name they are not called with is none
// that we could deploy.
type Wanted struct{ Branch, Tag func(name string) bool }

// Heads are branches and tags with their commits, by name. An annotated tag has the commit that it
// leads to, as in a delivery (BITBUCKET.md#delivery-size).
type Heads struct {
	Branches, Tags map[string]string
	// Empty says that git listed nothing at all, wanted or not: a repository without commits, or an
	// answer that is none.
	Empty bool
}

// ErrGone marks an answer that the repository is not reachable under its name.
var ErrGone = errors.New("git: repository not found")

// Error is trouble with a repository, told in words for people.
type Error struct {
	Reason  string
	Message string
	// Temporary says that the same may work later without anybody doing anything about the
	// repository itself.
	Temporary bool
	// Doubtful says that this is a refusal which may be a passing untruth, though its reason, or Temporary,
	// says otherwise: it is to be believed when it stays.
	Doubtful bool
	// RetryAfter is the least pause before the next try; 0 when nobody asked for one.
	RetryAfter time.Duration
	Err        error

	// About is the repository's name, where it is known.
	About string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("git: %s: %v", e.Reason, e.Err)
	}
	return "git: " + e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsGone tells that the repository could not be reached under its name: it may have been renamed.
func IsGone(err error) bool { return errors.Is(err, ErrGone) }
