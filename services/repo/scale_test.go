package repo_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/identity"
)

// parallel is the default of Config.Parallel.
const parallel = 10

// ideal is how long the calls would take if nothing but Bitbucket's latency cost time: one call for
// the Bitbucket workspaces, then all first pages, then all others, as many at once as allowed.
func ideal(calls int, latency time.Duration) time.Duration {
	rounds := 1 + (calls-1+parallel-1)/parallel
	return time.Duration(rounds) * latency
}

func TestListRepositories_tenThousand(t *testing.T) {
	const latency = 100 * time.Millisecond
	s := newStack(t, "ten-thousand")
	r := s.replica()
	s.do(s.control.SetLatency(t.Context(), latency))
	s.resetCalls()

	// Other tests may keep the machine busy.
	ctx, cancel := context.WithTimeout(s.ctx(), 10*time.Minute)
	defer cancel()
	began := time.Now()
	first, err := r.ListRepositories(ctx, &repov1.ListRepositoriesRequest{Workspace: workspace, PageSize: 1000})
	s.do(err)
	took := time.Since(began)
	calls, routes := s.calls()
	counters, err := s.control.Counters(t.Context())
	s.do(err)
	t.Logf("10,000 repositories over 20 Bitbucket workspaces at %s per answer: %d calls, %s; ideal at %d in flight %s (%d were)",
		latency, calls, took.Round(time.Millisecond), parallel, ideal(calls, latency), counters.MostParallel)
	if counters.MostParallel > parallel {
		t.Errorf("%d calls in flight, at most %d are allowed", counters.MostParallel, parallel)
	}
	if want := 1 + 20*5*2; calls != want {
		t.Errorf("%d calls, want %d: %v", calls, want, routes)
	}
	if first.GetTotalSize() != 10_000 || first.GetStale() || len(first.GetPartialFailures()) != 0 {
		t.Fatalf("total %d, stale %t, failures %v", first.GetTotalSize(), first.GetStale(), first.GetPartialFailures())
	}

	// Every one of them, each once, in order.
	seen := map[string]bool{}
	last := ""
	for resp, pages := first, 1; ; pages++ {
		for _, repository := range resp.GetRepositories() {
			if repository.GetFullName() <= last || repository.GetPermission() != repov1.Repository_ADMIN {
				t.Fatalf("%s (%s) comes after %s", repository.GetFullName(), repository.GetPermission(), last)
			}
			last = repository.GetFullName()
			seen[repository.GetId()] = true
		}
		if resp.GetNextPageToken() == "" || pages > 20 {
			break
		}
		resp = s.list(r, pageOf(1000, resp.GetNextPageToken()))
	}
	if len(seen) != 10_000 {
		t.Errorf("%d different repositories", len(seen))
	}

	began = time.Now()
	const searches = 20
	for i := range searches {
		name := fmt.Sprintf("service-%02d-%03d", i+1, i*7+1)
		if resp := s.list(r, query(name)); resp.GetTotalSize() != 1 || resp.GetRepositories()[0].GetName() != name {
			t.Fatalf("query %q: %v", name, names(resp))
		}
	}
	t.Logf("a search among them: %s", (time.Since(began) / searches).Round(10*time.Microsecond))
	if n, routes := s.calls(); n != calls {
		t.Errorf("pages and searches made %d calls: %v", n-calls, routes)
	}

	// A replica that has just started takes the list from Redis.
	began = time.Now()
	fresh := s.replica()
	resp, err := fresh.ListRepositories(s.as(identity.RoleMember, workspace), &repov1.ListRepositoriesRequest{Workspace: workspace})
	s.do(err)
	t.Logf("the first page from another replica's snapshot: %s", time.Since(began).Round(time.Millisecond))
	if n, _ := s.calls(); n != calls || resp.GetTotalSize() != 10_000 {
		t.Errorf("a new replica made %d calls and has %d repositories", n-calls, resp.GetTotalSize())
	}

	// Without Redis one that has just started can still list them all.
	s.redis.Stop()
	s.do(s.control.SetLatency(t.Context(), 0))
	began = time.Now()
	resp, err = s.replica().ListRepositories(ctx, &repov1.ListRepositoriesRequest{Workspace: workspace})
	s.do(err)
	t.Logf("without Redis and latency: %s", time.Since(began).Round(time.Millisecond))
	if resp.GetTotalSize() != 10_000 || resp.GetStale() || len(resp.GetPartialFailures()) != 0 {
		t.Errorf("without Redis: total %d, stale %t, failures %v", resp.GetTotalSize(), resp.GetStale(), resp.GetPartialFailures())
	}
}

func BenchmarkListRepositories_tenThousand(b *testing.B) {
	const latency = 100 * time.Millisecond
	s := newStack(b, "ten-thousand")
	r := s.replica()
	s.do(s.control.SetLatency(b.Context(), latency))
	s.resetCalls()
	client := s.redis.Client()
	for b.Loop() {
		b.StopTimer()
		s.auth.connect(b, workspace, "jane-dev") // nothing is known of a new connection
		s.do(client.FlushAll(b.Context()).Err()) // and the hour's budget of calls is whole again
		b.StartTimer()
		ctx, cancel := context.WithTimeout(s.ctx(), time.Minute)
		resp, err := r.ListRepositories(ctx, &repov1.ListRepositoriesRequest{Workspace: workspace})
		cancel()
		if err != nil || resp.GetTotalSize() != 10_000 || resp.GetStale() {
			b.Fatalf("total %d, stale %t, %v", resp.GetTotalSize(), resp.GetStale(), err)
		}
	}
	calls, _ := s.calls()
	calls /= b.N
	b.ReportMetric(float64(calls), "calls/op")
	b.ReportMetric(ideal(calls, latency).Seconds(), "ideal-s/op")
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/op")
}

func BenchmarkListRepositories_searchAmongTenThousand(b *testing.B) {
	s := newStack(b, "ten-thousand")
	r := s.replica()
	s.list(r)
	for b.Loop() {
		if resp := s.list(r, query("service-07-123")); resp.GetTotalSize() != 1 {
			b.Fatalf("total %d", resp.GetTotalSize())
		}
	}
}
