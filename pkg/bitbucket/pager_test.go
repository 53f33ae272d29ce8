package bitbucket

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
)

// pages serves a listing of n workspaces the way Bitbucket does; the knobs are what it leaves out.
type pages struct {
	n          int
	pageLength int
	noSize     bool // expensive collections have none
	emptyNext  bool // some answers say "next": "" on the last page
	opaque     bool // page tokens instead of numbers
	fail       map[int]int
	shrinkTo   int // once page one was served, only so many are left
	asked      atomic.Int32
	parallel   chan struct{} // when set, later pages wait until all of them were asked for
	later      atomic.Int32
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked.Add(1)
	q := r.URL.Query()
	number := 1
	if raw := q.Get("page"); raw != "" {
		number, _ = strconv.Atoi(strings.TrimPrefix(raw, "token"))
	}
	if p.parallel != nil && number > 1 {
		if last := (p.n + p.pageLength - 1) / p.pageLength; int(p.later.Add(1)) == last-1 {
			close(p.parallel)
		}
		select {
		case <-p.parallel:
		case <-time.After(time.Minute): // they are never asked for at once
		}
	}
	if status := p.fail[number]; status != 0 {
		answerText(w, status, "text/html", "<html>")
		return
	}
	n := p.n
	if p.shrinkTo > 0 && number > 1 {
		n = p.shrinkTo
	}
	first, last := (number-1)*p.pageLength, min(number*p.pageLength, n)
	if first >= n && number > 1 {
		answer(w, 404, map[string]any{"type": "error", "error": map[string]any{"message": "Invalid page"}})
		return
	}
	values := []any{}
	for i := first; i < last; i++ {
		values = append(values, map[string]any{"type": "workspace_access", "workspace": map[string]any{"slug": fmt.Sprintf("w%04d", i)}})
	}
	body := map[string]any{"values": values, "pagelen": p.pageLength, "page": number}
	if !p.noSize {
		body["size"] = n
	}
	if last < n {
		q.Set("page", strconv.Itoa(number+1))
		if p.opaque {
			q.Set("page", fmt.Sprintf("token%d", number+1))
		}
		body["next"] = "http://" + r.Host + r.URL.Path + "?" + q.Encode()
	} else if p.emptyNext {
		body["next"] = ""
	}
	answer(w, 200, body)
}

func slugs(l Listing[WorkspaceAccess]) []string {
	var all []string
	for _, w := range l.Values {
		all = append(all, w.Slug)
	}
	return all
}

func wantSlugs(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("w%04d", i))
	}
	return all
}

func TestList_completeAndInOrder(t *testing.T) {
	tests := map[string]*pages{
		"nothing":            {n: 0, pageLength: 100},
		"one page":           {n: 7, pageLength: 100},
		"exactly one page":   {n: 100, pageLength: 100},
		"two pages":          {n: 101, pageLength: 100},
		"many pages":         {n: 1234, pageLength: 100},
		"no size":            {n: 1234, pageLength: 100, noSize: true},
		"empty next":         {n: 250, pageLength: 100, emptyNext: true},
		"opaque page tokens": {n: 450, pageLength: 100, opaque: true},
		"short pages":        {n: 95, pageLength: 10},
	}
	for name, p := range tests {
		for _, parallel := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d at once", name, parallel), func(t *testing.T) {
				p.asked.Store(0)
				s := newServer(t, p.ServeHTTP)
				l, err := s.account(t, ClientOptions{}).Parallel(parallel).Workspaces(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got := slugs(l); !slices.Equal(got, wantSlugs(p.n)) {
					t.Errorf("%d values, want %d in order", len(got), p.n)
				}
				wantSize := p.n
				if p.noSize {
					wantSize = -1
				}
				if l.Size != wantSize || l.Truncated {
					t.Errorf("size = %d (truncated %t), want %d", l.Size, l.Truncated, wantSize)
				}
				if want := max(1, (p.n+p.pageLength-1)/p.pageLength); int(p.asked.Load()) != want {
					t.Errorf("%d requests, want %d", p.asked.Load(), want)
				}
				for _, r := range s.requests() {
					if !strings.Contains(r.Query, "sort=slug") || !strings.Contains(r.Query, "pagelen=100") {
						t.Errorf("query %q lost its parameters", r.Query)
					}
				}
			})
		}
	}
}

func TestList_laterPagesAreInFlightTogether(t *testing.T) {
	p := &pages{n: 500, pageLength: 100, parallel: make(chan struct{})}
	s := newServer(t, p.ServeHTTP)
	l, err := s.account(t, ClientOptions{}).Parallel(4).Workspaces(t.Context())
	if err != nil || len(l.Values) != 500 {
		t.Fatalf("%d values, %v", len(l.Values), err)
	}
	select {
	case <-p.parallel:
	default:
		t.Error("the four later pages were not in flight together")
	}
}

func TestList_failureKeepsWhatWasRead(t *testing.T) {
	for _, parallel := range []int{1, 4} {
		p := &pages{n: 500, pageLength: 100, fail: map[int]int{3: 503}}
		s := newServer(t, p.ServeHTTP)
		l, err := s.account(t, ClientOptions{}).Parallel(parallel).Workspaces(t.Context())
		if !IsKind(err, KindUnavailable) || len(l.Values) < 100 || l.Size != 500 {
			t.Errorf("%d at once: %d values of %d, err = %v", parallel, len(l.Values), l.Size, err)
		}
	}
}

func TestList_shrunkMeanwhile(t *testing.T) {
	p := &pages{n: 500, pageLength: 100, shrinkTo: 210}
	s := newServer(t, p.ServeHTTP)
	l, err := s.account(t, ClientOptions{}).Parallel(4).Workspaces(t.Context())
	if err != nil || len(l.Values) != 210 || l.Size != 500 {
		t.Errorf("%d values of %d, %v", len(l.Values), l.Size, err)
	}
}

func TestList_limitStopsEarly(t *testing.T) {
	tests := map[int]struct {
		values, requests int
		truncated        bool
	}{
		50: {100, 1, true}, 150: {200, 2, true}, 250: {300, 3, true}, 499: {500, 5, false}, 500: {500, 5, false}, 900: {500, 5, false},
	}
	for limit, want := range tests {
		for _, parallel := range []int{1, 4} {
			p := &pages{n: 500, pageLength: 100}
			s := newServer(t, p.ServeHTTP)
			k := call{route: RouteWorkspaces, path: "user/workspaces"}
			l, err := list[struct{}](t.Context(), s.account(t, ClientOptions{}).Parallel(parallel), k, limit)
			if err != nil || len(l.Values) != want.values || l.Truncated != want.truncated || len(s.requests()) != want.requests || l.Size != 500 {
				t.Errorf("limit %d, %d at once: %d values of %d (truncated %t) after %d requests, %v",
					limit, parallel, len(l.Values), l.Size, l.Truncated, len(s.requests()), err)
			}
		}
	}
}

func TestList_refusesBadLinks(t *testing.T) {
	var stolen atomic.Int32
	elsewhere := newServer(t, func(w http.ResponseWriter, _ *http.Request) { stolen.Add(1); answer(w, 200, map[string]any{}) })
	tests := map[string]string{
		"another origin":   elsewhere.URL + "/2.0/user/workspaces?page=2",
		"another path":     "http://%HOST%/site/oauth2?page=2",
		"climbing path":    "http://%HOST%/2.0/../x?page=2",
		"user information": "http://user@%HOST%/2.0/user/workspaces?page=2",
		"relative":         "/2.0/user/workspaces?page=2",
		"no URL":           "://",
		"itself":           "http://%HOST%/2.0/user/workspaces?pagelen=100&sort=slug",
		"back to page two": "http://%HOST%/2.0/user/workspaces?page=2",
	}
	for name, next := range tests {
		for _, parallel := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d at once", name, parallel), func(t *testing.T) {
				s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
					answer(w, 200, map[string]any{"values": []any{map[string]any{"workspace": map[string]any{"slug": "a"}}},
						"next": strings.ReplaceAll(next, "%HOST%", r.Host)})
				})
				l, err := s.account(t, ClientOptions{}).Parallel(parallel).Workspaces(t.Context())
				if !IsKind(err, KindBadResponse) || apierr.ReasonOf(err) != apierr.ReasonBitbucketUnavailable {
					t.Errorf("err = %v", err)
				}
				if len(l.Values) == 0 || len(s.requests()) > 3 || stolen.Load() != 0 {
					t.Errorf("%d values after %d requests, %d elsewhere", len(l.Values), len(s.requests()), stolen.Load())
				}
			})
		}
	}
}

func TestList_oneOddEntryHidesNoOther(t *testing.T) {
	const good = `{"uuid":"{11111111-2222-4333-8444-555555555555}","full_name":"acme/web","slug":"web","name":"web"}`
	for name, odd := range map[string]string{
		"null": `null`, "a number": `7`, "text": `"acme/odd"`, "a list": `[]`, "empty": `{}`, "no UUID": `{"full_name":"acme/odd"}`, "no name": `{"uuid":"{11111111-2222-4333-8444-666666666666}"}`,
		"another type": `{"uuid":7,"full_name":"acme/odd"}`, "deeper": `{"uuid":"{11111111-2222-4333-8444-666666666666}","full_name":"acme/odd","mainbranch":"main"}`,
	} {
		for _, parallel := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d at once", name, parallel), func(t *testing.T) {
				s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
					page, _ := strconv.Atoi(r.URL.Query().Get("page"))
					body := fmt.Sprintf(`{"size":8,"pagelen":2,"values":[%s,%s]`, odd, good)
					if page < 4 {
						body += fmt.Sprintf(`,"next":"http://%s%s?page=%d"`, r.Host, r.URL.Path, max(page, 1)+1)
					}
					answerText(w, 200, "application/json", body+"}")
				})
				l, err := s.account(t, ClientOptions{}).Parallel(parallel).Repositories(t.Context(), Workspace{Slug: "acme"}, RepositoriesOptions{})
				if err != nil || len(l.Values) != 4 || l.Skipped != 4 || l.Size != 8 {
					t.Errorf("%d values, %d skipped of %d: %v", len(l.Values), l.Skipped, l.Size, err)
				}
			})
		}
	}
}

func TestHooks_anOddOneOfOursIsNotOverlooked(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answerText(w, 200, "application/json", `{"values":[null,{"uuid":"{11111111-2222-4333-8444-555555555555}","url":"https://devpilot.example.com/x","active":"yes","events":{"a":1}},
			{"uuid":5},{"uuid":"{11111111-2222-4333-8444-666666666666}","url":"https://other.example.com","events":["repo:push"],"active":true}]}`)
	})
	hooks, err := s.account(t, ClientOptions{}).Hooks(t.Context(), Ref{Workspace: "acme", Repository: "web"})
	if err != nil || len(hooks) != 2 || hooks[0].URL != "https://devpilot.example.com/x" || hooks[0].Active || !hooks[1].Active {
		t.Errorf("%+v, %v", hooks, err)
	}
}

func TestWorkspace_errorsNameItAsPeopleDo(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answerText(w, 404, "text/plain", "") })
	w := Workspace{UUID: "11111111-2222-4333-8444-555555555555", Slug: "acme"}
	_, one := s.account(t, ClientOptions{}).Repositories(t.Context(), w, RepositoriesOptions{})
	_, two := s.account(t, ClientOptions{}).RepositoryPermissions(t.Context(), w, "")
	for _, err := range []error{one, two} {
		if m := apierr.From(err).Message(); !strings.Contains(m, "the Bitbucket workspace acme") || strings.Contains(m, w.UUID) {
			t.Errorf("%q", m)
		}
	}
}
