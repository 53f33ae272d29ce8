package auth_test

import (
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

const (
	inside  = "8e7b5c1e-0000-4000-8000-000000000001"
	outside = "8e7b5c1e-0000-4000-8000-000000000002"
)

// Whoever asks auth itself, around what repo and deployer check, gets no token for what is outside.
func TestIssueToken_noneForABitbucketWorkspaceOutsideTheNarrowing(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	deployer := authv1.NewAuthServiceClient(i.grpc.Dial("deployer"))
	webhook := authv1.NewAuthServiceClient(i.grpc.Dial("webhook"))
	tries := func(c authv1.AuthServiceClient, place string) apierr.Reason {
		t.Helper()
		r, err := c.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "acme-inc", BitbucketWorkspaceId: place})
		if err == nil && r.GetAccessToken() == "" {
			t.Error("neither a token nor an error")
		}
		return apierr.ReasonOf(err)
	}
	narrow := func(etag string, list ...*authv1.NarrowedTo) (*authv1.NarrowIntegrationResponse, error) {
		return i.gateway.NarrowIntegration(s.admin("acme-inc"), &authv1.NarrowIntegrationRequest{Workspace: "acme-inc", BitbucketWorkspaces: list, Etag: etag})
	}
	if r := tries(deployer, outside); r != "" {
		t.Fatalf("before anybody narrowed: %s", r)
	}
	before := s.get(i, "acme-inc")
	done, err := narrow(before.GetEtag(), &authv1.NarrowedTo{Id: "{8E7B5C1E-0000-4000-8000-000000000001}", Name: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if got := done.GetIntegration().GetNarrowedTo(); len(got) != 1 || got[0].GetId() != inside || got[0].GetName() != "acme" {
		t.Errorf("narrowed to %v", got)
	}
	if _, err := narrow(before.GetEtag()); !apierr.Has(err, apierr.ReasonEtagMismatch) {
		t.Errorf("an old etag: %v", err)
	}
	check := func(when string) {
		t.Helper()
		for _, c := range []authv1.AuthServiceClient{deployer, webhook} {
			if r := tries(c, inside); r != "" {
				t.Errorf("%s, inside: %s", when, r)
			}
			if r := tries(c, outside); r != apierr.ReasonWorkspaceExcluded {
				t.Errorf("%s, outside: %q", when, r)
			}
			if r := tries(c, ""); r != apierr.ReasonWorkspaceExcluded {
				t.Errorf("%s, without saying where: %q", when, r)
			}
		}
		r, err := i.repo.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "acme-inc"})
		if err != nil || len(r.GetNarrowedTo()) != 1 || r.GetNarrowedTo()[0] != inside {
			t.Errorf("%s, repo lists what there is: %v, %v", when, r.GetNarrowedTo(), err)
		}
		if r := tries(i.repo, outside); r != apierr.ReasonWorkspaceExcluded {
			t.Errorf("%s, repo, outside: %q", when, r)
		}
	}
	check("narrowed")
	// Another connect does not widen it; neither does a disconnect.
	if _, err := i.gateway.RemoveIntegration(s.admin("acme-inc"), &authv1.RemoveIntegrationRequest{Workspace: "acme-inc"}); err != nil {
		t.Fatal(err)
	}
	if got := s.get(i, "acme-inc").GetNarrowedTo(); len(got) != 1 {
		t.Errorf("disconnected, narrowed to %v", got)
	}
	s.connect(i, "acme-inc", "jane-dev")
	check("connected again")
	// Other workspaces are not concerned.
	s.connect(i, "other-inc", "jane-dev")
	if _, err := deployer.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "other-inc", BitbucketWorkspaceId: outside}); err != nil {
		t.Error(err)
	}
	if done, err = narrow(""); err != nil || len(done.GetBefore()) != 1 || len(done.GetIntegration().GetNarrowedTo()) != 0 {
		t.Errorf("widened: %v, %v", done, err)
	}
	if r := tries(deployer, outside); r != "" {
		t.Errorf("widened again: %s", r)
	}
}

// A workspace that is deleted leaves neither the tokens nor what it was narrowed to; of others nothing is touched.
func TestRemoveIntegration_forGoodForgetsTheNarrowing(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	for _, ws := range []string{"acme-inc", "other-inc"} {
		s.connect(i, ws, "jane-dev")
		_, err := i.gateway.NarrowIntegration(s.admin(ws), &authv1.NarrowIntegrationRequest{Workspace: ws, BitbucketWorkspaces: []*authv1.NarrowedTo{{Id: inside}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a repeat finds nothing and is none the worse for it
		if _, err := i.gateway.RemoveIntegration(s.admin("acme-inc"), &authv1.RemoveIntegrationRequest{Workspace: "acme-inc", ForGood: true}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.get(i, "acme-inc"); len(got.GetNarrowedTo()) != 0 || got.GetState() != authv1.Integration_NOT_CONNECTED {
		t.Errorf("left %v", got)
	}
	if got := s.get(i, "other-inc"); len(got.GetNarrowedTo()) != 1 || got.GetState() != authv1.Integration_CONNECTED {
		t.Errorf("the other workspace has %v", got)
	}
}

func TestNarrowIntegration_takesUUIDsOfAdmins(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	named := []*authv1.NarrowedTo{{Id: "acme"}}
	_, err := i.gateway.NarrowIntegration(s.admin("acme-inc"), &authv1.NarrowIntegrationRequest{Workspace: "acme-inc", BitbucketWorkspaces: named})
	if !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("a name, which may change hands: %v", err)
	}
	many := make([]*authv1.NarrowedTo, 101)
	for n := range many {
		many[n] = &authv1.NarrowedTo{Id: inside}
	}
	_, err = i.gateway.NarrowIntegration(s.admin("acme-inc"), &authv1.NarrowIntegrationRequest{Workspace: "acme-inc", BitbucketWorkspaces: many})
	if !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("too many: %v", err)
	}
	_, err = i.gateway.NarrowIntegration(s.as("acme-inc", identity.RoleMember, "m"), &authv1.NarrowIntegrationRequest{Workspace: "acme-inc"})
	if !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("a member: %v", err)
	}
	if got := s.get(i, "acme-inc").GetNarrowedTo(); len(got) != 0 {
		t.Errorf("refused, but narrowed to %v", got)
	}
}
