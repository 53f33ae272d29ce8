package auth_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/store"
)

// used is a repository of Bitbucket that apps use.
func (s *stack) used(token, fullName string, apps ...string) *authv1.UsedRepository {
	s.t.Helper()
	workspace, slug, _ := strings.Cut(fullName, "/")
	account := bitbucket.NewClient(s.site, bitbucket.ClientOptions{}).As(bitbucket.StaticToken(seal.NewSecret(token)))
	r, err := account.Repository(s.t.Context(), bitbucket.Ref{Workspace: workspace, Repository: slug})
	if err != nil {
		s.t.Fatal(err)
	}
	return &authv1.UsedRepository{Repository: r.UUID, FullName: fullName, Apps: apps}
}

// takeOver connects as another account where apps use repositories.
func (s *stack) takeOver(i *instance, account string, even bool, used ...*authv1.UsedRepository) (*authv1.Integration, error) {
	s.t.Helper()
	b := s.beginAs(i, s.as("acme-inc", identity.RoleAdmin, "olga"), "acme-inc", even)
	req := s.answer(b, account, true)
	req.Used = used
	done, err := i.gateway.CompleteAuthorization(s.as("acme-inc", identity.RoleAdmin, "olga"), req)
	return done.GetIntegration(), err
}

// resealed is the record of a workspace as it would be stored for another one.
func (s *stack) resealed(from, to string) []byte {
	s.t.Helper()
	tokens, rec := store.NewTokens(s.keyset), s.stored(from)
	access, err := tokens.OpenAccess(from, rec.GetAccess().GetSealed())
	if err != nil {
		s.t.Fatal(err)
	}
	refresh, err := tokens.OpenRefresh(from, rec.GetRefresh().GetSealed())
	if err != nil {
		s.t.Fatal(err)
	}
	rec.Workspace = to
	if rec.Access.Sealed, err = tokens.SealAccess(to, access); err != nil {
		s.t.Fatal(err)
	}
	if rec.Refresh.Sealed, rec.Refresh.Id, err = tokens.SealRefresh(to, refresh); err != nil {
		s.t.Fatal(err)
	}
	data, err := proto.Marshal(rec)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func TestReplace_anAccountThatReachesAllTakesTheOthersPlace(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	first := s.connect(i, "acme-inc", "jane-dev")
	if first.GetConnectedById() != "jane" {
		t.Errorf("connected by %q", first.GetConnectedById())
	}
	old, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if err != nil {
		t.Fatal(err)
	}
	was := s.stored("acme-inc")
	web := s.used(old.GetAccessToken(), "acme/web", "shop", "web")
	got, err := s.takeOver(i, "acme-admin", false, web)
	if err != nil {
		t.Fatal(err)
	}
	if got.GetState() != authv1.Integration_CONNECTED || got.GetAccount().GetLabel() != "acme-admin" || got.GetConnectedById() != "olga" || got.GetConnectionId() == first.GetConnectionId() {
		t.Errorf("after it: %v", got)
	}
	fresh, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if err != nil || fresh.GetAccountUuid() != got.GetAccount().GetUuid() {
		t.Fatalf("%s %v", fresh.GetAccountUuid(), err)
	}
	if err := s.works(fresh.GetAccessToken()); err != nil {
		t.Error(err)
	}
	gone := map[string][]byte{
		"old access, plain": []byte(old.GetAccessToken()), "old access, stored": was.GetAccess().GetSealed(), "old refresh, stored": was.GetRefresh().GetSealed(),
	}
	if found := onDisk(t, s.natsDir, gone); len(found) > 0 {
		t.Errorf("replaced, and still on disk: %v", found)
	}
	s.logs.MustNotContain(t, old.GetAccessToken(), fresh.GetAccessToken())
}

func TestReplace_anAccountThatWouldStopAppsChangesNothingUntilThatIsWanted(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	first := s.connect(i, "acme-inc", "jane-dev")
	old, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if err != nil {
		t.Fatal(err)
	}
	web, notes := s.used(old.GetAccessToken(), "acme/web", "web"), s.used(old.GetAccessToken(), "jane-dev/notes", "notes", "diary")
	_, err = s.takeOver(i, "acme-admin", false, web, notes)
	e := wantReason(t, err, apierr.ReasonAppsWouldStop)
	if e.Detail("apps") != "diary notes" || e.Detail("appsCount") != "2" ||
		e.Message() != "@acme-admin cannot reach the repositories of diary, notes, which would stop deploying. Nothing was changed: @jane-dev stays connected." {
		t.Errorf("%s; apps %q of %s", e.Message(), e.Detail("apps"), e.Detail("appsCount"))
	}
	if got := s.get(i, "acme-inc"); got.GetConnectionId() != first.GetConnectionId() || got.GetConnectedById() != "jane" {
		t.Errorf("it was changed: %v", got)
	}
	if again, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil || s.works(again.GetAccessToken()) != nil {
		t.Errorf("the old token does not work any more: %v", err)
	}
	// The same account again is no replacement, and one that is wanted in any case is taken.
	if _, err := s.takeOver(i, "jane-dev", false, web, notes); err != nil {
		t.Error(err)
	}
	if got, err := s.takeOver(i, "acme-admin", true, web, notes); err != nil || got.GetAccount().GetLabel() != "acme-admin" {
		t.Errorf("%v %v", got, err)
	}
}

func TestReplace_whatCannotBeLookedAtChangesNothing(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	first := s.connect(i, "acme-inc", "jane-dev")
	old, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if err != nil {
		t.Fatal(err)
	}
	web := s.used(old.GetAccessToken(), "acme/web", "web")
	if _, err := s.control.Inject(t.Context(), emulator.Fault{Path: "/2.0/repositories/", Status: 503, Body: "{}"}); err != nil {
		t.Fatal(err)
	}
	_, err = s.takeOver(i, "acme-admin", false, web)
	wantReason(t, err, apierr.ReasonBitbucketUnavailable)
	if got := s.get(i, "acme-inc"); got.GetConnectionId() != first.GetConnectionId() {
		t.Errorf("it was changed: %v", got)
	}
}

// A process that dies between the write of the new connection and the erasure of the old one leaves the new one: it
// works, and the next process erases what is left.
func TestReplace_aKillBetweenTheWriteAndTheErasure(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	was := s.stored("acme-inc")
	// What the process wrote last: the record of another connection, which lies elsewhere until now.
	s.connect(i, "elsewhere", "acme-admin")
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.nats.JS().Publish(t.Context(), "$KV.DEVPILOT_AUTH_INTEGRATIONS.acme-inc.bitbucket", s.resealed("elsewhere", "acme-inc")); err != nil {
		t.Fatal(err)
	}
	old := map[string][]byte{"access": was.GetAccess().GetSealed(), "refresh": was.GetRefresh().GetSealed()}
	if found := onDisk(t, s.natsDir, old); len(found) == 0 {
		t.Fatal("the old tokens are not on disk: the test shows nothing")
	}
	next := s.start("P2")
	testkit.Eventually(t, timeout, func() error {
		r, err := issue(t, next.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
		if err != nil {
			return err
		}
		return s.works(r.GetAccessToken())
	})
	if got := s.get(next, "acme-inc"); got.GetAccount().GetLabel() != "acme-admin" || got.GetState() != authv1.Integration_CONNECTED {
		t.Errorf("%v", got)
	}
	if found := onDisk(t, s.natsDir, old); len(found) > 0 {
		t.Errorf("still on disk: %v", found)
	}
}
