package repo_test

import (
	"errors"
	"strings"
	"testing"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
)

func TestListRepositories_callerErrorsPassThrough(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	for _, reason := range []apierr.Reason{apierr.ReasonReconnectRequired, apierr.ReasonTokenExpired, apierr.ReasonConsumerRefused, apierr.ReasonStorageUnavailable} {
		s.auth.fail(apierr.New(reason, "What auth says."))
		_, err := s.tryList(r)
		if e := apierr.From(err); e.Reason() != reason || e.Message() != "What auth says." {
			t.Errorf("%s: err = %v", reason, err)
		}
	}
	s.auth.fail(errors.New("planted text"))
	if _, err := s.tryList(r); !apierr.Has(err, apierr.ReasonInternal) || strings.Contains(apierr.From(err).Message(), "planted") {
		t.Errorf("an untyped error: %v", err)
	}
}

func TestListRepositories_policy(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	req := &repov1.ListRepositoriesRequest{Workspace: workspace}
	for _, role := range []identity.Role{identity.RoleMember, identity.RoleAdmin, identity.RoleOwner} {
		if _, err := r.ListRepositories(s.as(role, workspace), req); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	for what, call := range map[string]func() error{
		"a member of another workspace": func() error {
			_, err := r.ListRepositories(s.as(identity.RoleOwner, "other"), req)
			return err
		},
		"no role": func() error {
			_, err := r.ListRepositories(s.as(identity.RoleNone, workspace), req)
			return err
		},
		"the webhook service": func() error {
			_, err := repov1.NewRepoServiceClient(r.server.Dial("webhook")).ListRepositories(t.Context(), req)
			return err
		},
		"the deployer on lists": func() error {
			_, err := r.deployer.ListRepositories(t.Context(), req)
			return err
		},
		"the gateway on heads": func() error {
			_, err := r.GetBranch(s.ctx(), &repov1.GetBranchRequest{Workspace: workspace, Repository: emulator.SeededUUID("repository", "acme/web"), Branch: "main"})
			return err
		},
	} {
		if err := call(); !apierr.Has(err, apierr.ReasonPermissionDenied) {
			t.Errorf("%s: err = %v", what, err)
		}
	}
}

func TestListRepositories_tokensReachNoLog(t *testing.T) {
	s := newStack(t, "sample")
	r := s.replica()
	s.list(r)
	_, err := s.control.ExpireTokens(t.Context(), "")
	s.do(err)
	old := s.auth.connections[workspace].token
	s.list(r, refresh)
	s.logs.MustNotContain(t, old, s.auth.connections[workspace].token)
}
