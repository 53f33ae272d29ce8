package pagetoken

import "devpilot.io/bitbucket/pkg/apierr"

// Rows of a page, everywhere but in the list of repositories, which is longer (RepositoriesPage).
const (
	// DefaultPage is how many rows a page has when the caller does not say.
	DefaultPage = 50
	// MaxPage is how many it has at most; who asks for more gets these.
	MaxPage = 200
	// RepositoriesPage is MaxPage for lists that are in memory and that a form shows as a whole.
	RepositoriesPage = 1000
)

// Size is the rows of the page that was asked for: the default for none, never more than most.
// A negative number is the caller's mistake.
func Size(asked int32, most int) (int, error) {
	switch {
	case asked < 0:
		return 0, apierr.InvalidArgument("pageSize", "must not be negative")
	case asked == 0:
		return DefaultPage, nil
	}
	return min(int(asked), most), nil
}
