package bitbucket

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"golang.org/x/sync/errgroup"
)

// pageLen is the page length asked for: the most that repositories, branches, hooks and workspaces
// accept (BITBUCKET.md#pages).
const pageLen = 100

// maxPages ends a listing that does not end by itself.
const maxPages = 5000

// Listing is all values of a listing.
type Listing[T any] struct {
	Values []T
	// Size is how many values Bitbucket says there are; -1 where it does not say. It was counted
	// when the first page was made.
	Size int
	// Truncated is set where a limit of the caller ended the listing early.
	Truncated bool
	// Skipped is how many entries could not be read and are not among the values: one that is odd does
	// not hide the others.
	Skipped int
}

// entries are the values of a page, without those that cannot be read.
type entries[T any] struct {
	list    []T
	skipped int
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *entries[T]) UnmarshalJSON(b []byte) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*e = entries[T]{list: make([]T, 0, len(raw))}
	for _, one := range raw {
		var v T
		if string(one) == "null" || json.Unmarshal(one, &v) != nil {
			e.skipped++
			continue
		}
		e.list = append(e.list, v)
	}
	return nil
}

func (e *entries[T]) len() int { return len(e.list) + e.skipped }

func (l *Listing[T]) add(e entries[T]) {
	l.Values, l.Skipped = append(l.Values, e.list...), l.Skipped+e.skipped
}

// page is the envelope of a listing. Only values is guaranteed (BITBUCKET.md#pages).
type page[T any] struct {
	Values  entries[T] `json:"values"`
	Next    string     `json:"next"` // absent or "" on the last page
	Size    *int       `json:"size"`
	PageLen int        `json:"pagelen"`
}

// list is the one pager. It follows `next`, which must stay on the API's origin. Later pages are
// fetched in parallel only on an account with [Account.Parallel], and only where page one tells how
// many values there are and its `next` counts pages by number: then all addresses are known. limit
// ends the listing once so many values are there; 0 for no limit. Callers pass an explicit sort in
// the query wherever BITBUCKET.md names one: Bitbucket's own order is not stable.
//
// On an error the values got so far come along with it.
func list[T any](ctx context.Context, a *Account, k call, limit int) (Listing[T], error) {
	k.method = http.MethodGet
	var first page[T]
	k.out = &first
	if err := a.do(ctx, k); err != nil {
		return Listing[T]{Size: -1}, err
	}
	l := Listing[T]{Size: -1}
	l.add(first.Values)
	if first.Size != nil {
		l.Size = *first.Size
	}
	next, err := a.nextLink(k, first.Next)
	if err != nil {
		return l, err
	}
	if next != nil && a.parallelism() > 1 && first.Size != nil {
		size := *first.Size
		if limit > 0 {
			size = min(size, limit)
		}
		if template, last := numberedPages(next, size, first.PageLen, first.Values.len()); last > 2 {
			var more entries[T]
			more, next, err = listParallel[T](ctx, a, k, template, last)
			l.add(more)
			if err != nil {
				return l, err
			}
		}
	}
	return listRest(ctx, a, k, next, l, limit)
}

// listRest follows next links one by one. A link that was followed before ends it with an error.
func listRest[T any](ctx context.Context, a *Account, k call, next *url.URL, l Listing[T], limit int) (Listing[T], error) {
	seen := map[string]bool{}
	for next != nil {
		if limit > 0 && len(l.Values) >= limit {
			l.Truncated = true
			return l, nil
		}
		if seen[next.String()] || len(seen) >= maxPages {
			return l, a.client.bad(k, http.StatusOK, "the pages of the listing lead in a circle")
		}
		seen[next.String()] = true
		var p page[T]
		k.next, k.out = next, &p
		if err := a.do(ctx, k); err != nil {
			return l, err
		}
		l.add(p.Values)
		var err error
		if next, err = a.nextLink(k, p.Next); err != nil {
			return l, err
		}
	}
	return l, nil
}

// nextLink checks a link of a listing before a token is sent there.
func (a *Account) nextLink(k call, raw string) (*url.URL, error) {
	if raw == "" {
		return nil, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, a.client.bad(k, http.StatusOK, "the link to the next page is not a URL")
	}
	u.Fragment = ""
	if !a.client.site.OnAPI(u) {
		return nil, a.client.bad(k, http.StatusOK, "the link to the next page leads to another origin")
	}
	return u, nil
}

// numberedPages returns the link to page two as a template and the number of the last page, or 0
// where the link does not count pages by number (some endpoints put an opaque token there).
func numberedPages(next *url.URL, size, pageLength, got int) (template *url.URL, last int) {
	if n, err := strconv.Atoi(next.Query().Get("page")); err != nil || n != 2 {
		return nil, 0
	}
	if pageLength <= 0 {
		pageLength = got
	}
	// A page that is shorter than its length tells that the numbers mean something else here.
	if pageLength <= 0 || got != pageLength || size <= got {
		return nil, 0
	}
	last = (size + pageLength - 1) / pageLength
	if last > maxPages {
		return nil, 0
	}
	return next, last
}

// listParallel fetches pages 2 to last at once, as far as the account's slots allow, and returns
// their values in order, with the link that the last page holds if the list has grown meanwhile.
func listParallel[T any](ctx context.Context, a *Account, k call, template *url.URL, last int) (entries[T], *url.URL, error) {
	pages := make([]page[T], last-1)
	failed := make([]error, last-1)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.parallelism())
	for i := range pages {
		g.Go(func() error {
			u := *template
			q := u.Query()
			q.Set("page", strconv.Itoa(i+2))
			u.RawQuery = q.Encode()
			one := k
			one.next, one.out = &u, &pages[i]
			err := a.do(gctx, one)
			if i > 0 && IsKind(err, KindNotFound) {
				// The list has shrunk: its last pages are no more (BITBUCKET.md#pages).
				pages[i], err = page[T]{}, nil
			}
			failed[i] = err
			return err
		})
	}
	err := g.Wait()
	var values entries[T]
	for i := range pages {
		if failed[i] == nil {
			values.list, values.skipped = append(values.list, pages[i].Values.list...), values.skipped+pages[i].Values.skipped
		}
	}
	if err != nil {
		return values, nil, err
	}
	next, err := a.nextLink(k, pages[len(pages)-1].Next)
	return values, next, err
}

// listQuery is the part of a listing's query that all listings share.
func listQuery(sort, filter, fields string) url.Values {
	q := url.Values{"pagelen": {strconv.Itoa(pageLen)}}
	if sort != "" {
		q.Set("sort", sort)
	}
	if filter != "" {
		q.Set("q", filter)
	}
	if fields != "" {
		q.Set("fields", fields)
	}
	return q
}
