package auth_test

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth"
)

func noGrace(o *emulator.TokenOptions) { o.Rotate, o.Grace = true, 0 }

func withGrace(o *emulator.TokenOptions) { o.Rotate, o.Grace = true, 10*time.Minute }

// Three processes, 200 callers at once, an expired token, rotation with no grace: one refresh.
func TestIssueToken_concurrentCallersRefreshOnce(t *testing.T) {
	s := newStack(t, emulator.Options{})
	s.logger = slog.New(slog.DiscardHandler)
	s.switches(func(sw *emulator.Switches) { noGrace(&sw.Tokens); sw.Latency = 100 * time.Millisecond })
	is := []*instance{s.start("P1"), s.start("P2"), s.start("P3")}
	s.connect(is[0], "acme-inc", "jane-dev")
	for round := range 3 {
		s.expire()
		before := s.counters()
		var mu sync.Mutex
		tokens := map[string]int{}
		var wg sync.WaitGroup
		for n := range 200 {
			wg.Go(func() {
				r, err := issue(t, is[n%3].repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
				if err != nil {
					t.Errorf("caller %d: %v", n, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				tokens[r.GetAccessToken()]++
			})
		}
		wg.Wait()
		after := s.counters()
		if after.Refreshes-before.Refreshes != 1 || after.RefreshesDead != 0 || len(tokens) != 1 {
			t.Fatalf("round %d: %d refreshes, %d refused, %d different tokens", round, after.Refreshes-before.Refreshes, after.RefreshesDead, len(tokens))
		}
		for tok := range tokens {
			if err := s.works(tok); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestIssueToken_minLifeAndRejected(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	ask := func(r *authv1.IssueTokenRequest) string {
		t.Helper()
		r.Workspace = "acme-inc"
		got, err := issue(t, i.repo, r)
		if err != nil {
			t.Fatal(err)
		}
		return got.GetAccessToken()
	}
	first := ask(&authv1.IssueTokenRequest{})
	s.forward(90 * time.Minute)
	if ask(&authv1.IssueTokenRequest{MinLife: durationpb.New(20 * time.Minute)}) == "" {
		t.Error("no token")
	}
	second := ask(&authv1.IssueTokenRequest{MinLife: durationpb.New(time.Hour)})
	if second == first {
		t.Error("a token with half an hour left was handed out for an hour")
	}
	// Bitbucket revokes the access token alone: callers meet 401 and say so.
	if _, err := s.control.ExpireTokens(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(second))
	third := ask(&authv1.IssueTokenRequest{RejectedTokenSha256: sum[:]})
	if third == second || s.works(third) != nil {
		t.Error("a rejected token was not renewed")
	}
	if again := ask(&authv1.IssueTokenRequest{RejectedTokenSha256: sum[:]}); again != third {
		t.Error("renewed again for a token that is not in use any more")
	}
}

// A token that Bitbucket rejected for one thing and accepts for the others.
func TestIssueToken_aTokenThatIsAcceptedElsewhereStays(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	first, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(first.GetAccessToken()))
	for range 20 {
		again, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc", RejectedTokenSha256: sum[:]})
		if err != nil || again.GetAccessToken() != first.GetAccessToken() {
			t.Fatalf("another token, or %v", err)
		}
	}
	if got := s.get(i, "acme-inc"); got.GetState() != authv1.Integration_CONNECTED || got.GetLastError() != nil {
		t.Errorf("%v", got)
	}
}

func TestIssueToken_notConnected(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	_, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	wantReason(t, err, apierr.ReasonNotConnected)
}

// The holder of the lease is cut off between Bitbucket's answer and the write, for longer than the
// others wait, and comes back: still connected, with and without having lost its answer.
func TestRefresh_holderCutOffWithGrace(t *testing.T) {
	for _, comesBack := range []bool{false, true} {
		t.Run(fmt.Sprint("comes back ", comesBack), func(t *testing.T) {
			s := newStack(t, emulator.Options{})
			s.switches(func(sw *emulator.Switches) { withGrace(&sw.Tokens) })
			// No keepers: the other one's must not refresh before the holder does.
			impatient := func(c *auth.Config) { c.Timing.TakeOver, c.Timing.Scan = time.Second, time.Hour }
			holder, other := s.start("holder", impatient), s.start("other", impatient)
			s.connect(holder, "acme-inc", "jane-dev")
			s.expire()
			release := make(chan struct{})
			held := make(chan struct{}, 1)
			s.gate.set(func(g *gate) {
				g.onRefresh = func(process string) bool {
					if process != "holder" {
						return true
					}
					select {
					case held <- struct{}{}:
					default:
					}
					<-release
					return comesBack
				}
			})
			go func() {
				_, _ = issue(t, holder.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
			}()
			<-held
			r, err := issue(t, other.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
			if err != nil || s.works(r.GetAccessToken()) != nil {
				t.Fatalf("the other process: %v", err)
			}
			if n := metric(t, other, "devpilot_auth_lease_takeovers_total", ""); n != 1 {
				t.Errorf("%v takeovers counted", n)
			}
			s.gate.set(func(g *gate) { g.onRefresh = nil })
			close(release)
			for range 3 {
				s.expire()
				if r, err = issue(t, other.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil || s.works(r.GetAccessToken()) != nil {
					t.Fatalf("later: %v", err)
				}
			}
			if got := s.get(other, "acme-inc"); got.GetState() != authv1.Integration_CONNECTED {
				t.Errorf("%v", got)
			}
		})
	}
}

// Removed, or removed and connected anew, while Bitbucket's answer is on its way: nothing of the old
// connection comes back.
func TestRefresh_removedMeanwhile(t *testing.T) {
	for _, reconnect := range []bool{false, true} {
		t.Run(fmt.Sprint("reconnect ", reconnect), func(t *testing.T) {
			s := newStack(t, emulator.Options{})
			i, other := s.start("P1"), s.start("P2")
			first := s.connect(i, "acme-inc", "jane-dev")
			s.expire()
			held, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			s.gate.set(func(g *gate) {
				g.onRefresh = func(string) bool {
					once.Do(func() { close(held); <-release })
					return true
				}
			})
			issued := make(chan error, 1)
			go func() {
				_, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
				issued <- err
			}()
			<-held
			removed, err := other.gateway.RemoveIntegration(s.admin("acme-inc"), &authv1.RemoveIntegrationRequest{Workspace: "acme-inc"})
			if err != nil || !removed.GetRemoved() {
				t.Fatal(err)
			}
			var second *authv1.Integration
			if reconnect {
				second = s.connect(other, "acme-inc", "acme-admin")
			}
			close(release)
			err = <-issued
			got := s.get(i, "acme-inc")
			if !reconnect {
				wantReason(t, err, apierr.ReasonNotConnected)
				if got.GetState() != authv1.Integration_NOT_CONNECTED || got.GetConnectionId() != "" {
					t.Errorf("resurrected: %v", got)
				}
				return
			}
			if err != nil || got.GetConnectionId() != second.GetConnectionId() || got.GetConnectionId() == first.GetConnectionId() || got.GetAccount().GetLabel() != "acme-admin" {
				t.Errorf("%v: %v", err, got)
			}
		})
	}
}

// A lost answer with no grace at Bitbucket cannot be mended, and is told as what it is; a lost answer
// with grace passes unnoticed.
func TestRefresh_lostAnswer(t *testing.T) {
	for _, grace := range []bool{true, false} {
		t.Run(fmt.Sprint("grace ", grace), func(t *testing.T) {
			s := newStack(t, emulator.Options{})
			if grace {
				s.switches(func(sw *emulator.Switches) { withGrace(&sw.Tokens) })
			}
			i := s.start("P1")
			s.connect(i, "acme-inc", "jane-dev")
			s.expire()
			var once sync.Once
			s.gate.set(func(g *gate) {
				g.onRefresh = func(string) (arrives bool) {
					arrives = true
					once.Do(func() { arrives = false })
					return arrives
				}
			})
			ask := func() error {
				_, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
				return err
			}
			e := wantReason(t, ask(), apierr.ReasonBitbucketUnavailable)
			if e.RetryAfter() <= 0 || e.RetryAfter() > 10*time.Second {
				t.Errorf("retry after %v", e.RetryAfter())
			}
			s.forward(10 * time.Second)
			if grace {
				if err := ask(); err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, ask(), apierr.ReasonTokenExpired)
			s.forward(12 * time.Minute)
			testkit.Eventually(t, timeout, func() error {
				if got := s.get(i, "acme-inc"); got.GetState() != authv1.Integration_RECONNECT_REQUIRED {
					return fmt.Errorf("state %v", got.GetState())
				}
				return nil
			})
			got := s.get(i, "acme-inc").GetLastError()
			if got.GetReason() != string(apierr.ReasonReconnectRequired) || !strings.Contains(got.GetMessage(), "refused the refresh token twice") {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestRefresh_unavailableAndRateLimited(t *testing.T) {
	for status, reason := range map[int]apierr.Reason{503: apierr.ReasonBitbucketUnavailable, 429: apierr.ReasonBitbucketRateLimited, 500: apierr.ReasonBitbucketUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := newStack(t, emulator.Options{})
			i := s.start("P1")
			s.connect(i, "acme-inc", "jane-dev")
			id, err := s.control.Inject(t.Context(), emulator.Fault{Route: "/site/oauth2/access_token", Status: status, Body: "<html>trouble</html>", BodyKind: "html"})
			if err != nil {
				t.Fatal(err)
			}
			s.forward(30 * time.Second)
			_, err = i.gateway.RefreshIntegration(s.admin("acme-inc"), &authv1.RefreshIntegrationRequest{Workspace: "acme-inc"})
			e := wantReason(t, err, reason)
			if !strings.Contains(e.Message(), fmt.Sprint(status)) || !strings.Contains(e.Message(), "Deployments go on until") {
				t.Errorf("%s", e.Message())
			}
			got := s.get(i, "acme-inc")
			if got.GetState() != authv1.Integration_REFRESH_FAILING || got.GetLastError().GetReason() != string(reason) || got.GetLastError().GetRetryTime() == nil {
				t.Errorf("%v", got)
			}
			if _, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil {
				t.Errorf("the token is valid still: %v", err)
			}
			for range 5 { // whatever comes, it does not count
				s.forward(20 * time.Minute)
				testkit.Eventually(t, timeout, func() error {
					if got := s.get(i, "acme-inc").GetLastError().GetTime().AsTime(); time.Now().Add(time.Duration(s.ahead.Load())).Sub(got) > time.Minute {
						return fmt.Errorf("not tried again since %v", got)
					}
					return nil
				})
			}
			if got := s.get(i, "acme-inc"); got.GetState() != authv1.Integration_REFRESH_FAILING {
				t.Errorf("%v", got)
			}
			if err := s.control.RemoveFault(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			s.forward(20 * time.Minute)
			eventually(t, func() bool { return s.get(i, "acme-inc").GetState() == authv1.Integration_CONNECTED })
		})
	}
}

// A wrong client secret refuses everybody; nobody is marked for it.
func TestRefresh_wrongSecretMarksNobody(t *testing.T) {
	s := newStack(t, emulator.Options{})
	right := s.start("right")
	all := []string{"a", "b", "c", "d"}
	for _, ws := range all {
		s.connect(right, ws, "jane-dev")
	}
	if err := right.stop(); err != nil {
		t.Fatal(err)
	}
	s.expire()
	wrong := s.start("wrong", func(c *auth.Config) { c.ClientSecret = seal.NewSecret("not-the-secret") })
	for range 6 {
		for _, ws := range all {
			_, err := issue(t, wrong.repo, &authv1.IssueTokenRequest{Workspace: ws})
			wantReason(t, err, apierr.ReasonConsumerRefused)
		}
		s.forward(30 * time.Minute)
	}
	for _, ws := range all {
		got := s.get(wrong, ws)
		if got.GetState() != authv1.Integration_REFRESH_FAILING || got.GetLastError().GetReason() != string(apierr.ReasonConsumerRefused) {
			t.Errorf("%s: %v, %v", ws, got.GetState(), got.GetLastError())
		}
	}
	if err := wrong.stop(); err != nil {
		t.Fatal(err)
	}
	mended := s.start("mended")
	for _, ws := range all {
		if r, err := issue(t, mended.repo, &authv1.IssueTokenRequest{Workspace: ws}); err != nil || s.works(r.GetAccessToken()) != nil {
			t.Errorf("%s with the right secret again: %v", ws, err)
		}
	}
}

// One dead connection locks the consumer out for minutes: the others show it and recover; only the
// dead one is given up.
func TestRefresh_lockOut(t *testing.T) {
	s := newStack(t, emulator.Options{})
	s.switches(func(sw *emulator.Switches) {
		noGrace(&sw.Tokens)
		sw.Tokens.LockOut, sw.Tokens.LockOutFor = true, 3*time.Minute
	})
	i := s.start("P1")
	all := []string{"dead", "b", "c"}
	for _, ws := range all {
		s.connect(i, ws, "jane-dev")
	}
	state, err := s.control.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	oldest := state.Grants[0]
	for _, g := range state.Grants {
		if g.CreatedAt.Before(oldest.CreatedAt) {
			oldest = g
		}
	}
	if err := s.control.RevokeGrant(t.Context(), oldest.ID); err != nil {
		t.Fatal(err)
	}
	s.expire()
	deadline := time.Now().Add(timeout)
	for s.get(i, "dead").GetState() != authv1.Integration_RECONNECT_REQUIRED {
		if time.Now().After(deadline) {
			t.Fatalf("the dead one was not given up: %v", s.get(i, "dead"))
		}
		for _, ws := range all {
			_, _ = issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: ws})
		}
		s.forward(time.Minute)
	}
	for _, ws := range all[1:] {
		testkit.Eventually(t, timeout, func() error {
			s.forward(time.Minute)
			if got := s.get(i, ws); got.GetState() != authv1.Integration_CONNECTED {
				return fmt.Errorf("%s: %v, %v", ws, got.GetState(), got.GetLastError())
			}
			return nil
		})
	}
	if s.counters().RefreshesLockedOut == 0 {
		t.Error("nobody was locked out: the test shows nothing")
	}
}
