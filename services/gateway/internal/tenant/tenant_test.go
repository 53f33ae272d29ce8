package tenant

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

func open(t *testing.T) *Store {
	t.Helper()
	s := New(testkit.JS(t), Options{Logger: testkit.Logger(t).Logger, Now: time.Now})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Open(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	jane = Subject{ID: "jane", Label: "Jane Developer"}
	john = Subject{ID: "john", Label: "John Developer"}
)

func TestCreate_completesWhatWasCutOff(t *testing.T) {
	s, ctx := open(t), t.Context()
	// A process died between the workspace and its owner.
	w := &gatewaystorev1.Workspace{Id: "acme", DisplayName: "acme", CreatedBy: jane.ID, CreateTime: timestamppb.Now()}
	if _, err := s.workspaces.Create(ctx, "acme", w); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, "acme", "", john); !apierr.Has(err, apierr.ReasonWorkspaceExists) {
		t.Errorf("somebody else took it over: %v", err)
	}
	done, err := s.Create(ctx, "acme", "", jane)
	if err != nil || done.Role != identity.RoleOwner {
		t.Errorf("not completed: %v %v", done, err)
	}
	if _, err := s.Create(ctx, "acme", "", jane); !apierr.Has(err, apierr.ReasonWorkspaceExists) {
		t.Errorf("created twice: %v", err)
	}
}

func TestMembers_roleOfToday(t *testing.T) {
	s, ctx := open(t), t.Context()
	if _, err := s.Create(ctx, "acme", "", jane); err != nil {
		t.Fatal(err)
	}
	role := func(who string) identity.Role {
		t.Helper()
		r, err := s.Role(ctx, "acme", who)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if role(john.ID) != identity.RoleNone {
		t.Error("a stranger has a role")
	}
	for _, want := range []identity.Role{identity.RoleMember, identity.RoleAdmin, identity.RoleMember} {
		if err := s.AddMember(ctx, "acme", john, want); err != nil {
			t.Fatal(err)
		}
		if got := role(john.ID); got != want {
			t.Errorf("role %s, not %s", got, want)
		}
	}
	list, more, err := s.List(ctx, john.ID, "", 10)
	if err != nil || more || len(list) != 1 || list[0].Role != identity.RoleMember {
		t.Errorf("list %v %v %v", list, more, err)
	}
	owner := By{Subject: jane.ID, Role: identity.RoleOwner}
	if err := s.RemoveMember(ctx, "acme", john.ID, owner); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveMember(ctx, "acme", john.ID, owner); !apierr.Has(err, apierr.ReasonMemberNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if list, _, _ := s.List(ctx, john.ID, "", 10); role(john.ID) != identity.RoleNone || len(list) != 0 {
		t.Errorf("still there: %v", list)
	}
	if r, err := s.Role(ctx, "not a workspace > *", "x"); err != nil || r != identity.RoleNone {
		t.Errorf("a bad id: %v %v", r, err)
	}
}

// TestMembers_listShowsOnlyMembers: the list of an account may name more than there is.
func TestMembers_listShowsOnlyMembers(t *testing.T) {
	s, ctx := open(t), t.Context()
	for _, id := range []string{"a", "b", "c"} {
		if _, err := s.Create(ctx, id, "", jane); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.teams.Delete(ctx, "b", 0); err != nil {
		t.Fatal(err)
	}
	if err := s.workspaces.Delete(ctx, "c", 0); err != nil {
		t.Fatal(err)
	}
	list, _, err := s.List(ctx, jane.ID, "", 10)
	if err != nil || len(list) != 1 || list[0].GetId() != "a" {
		t.Errorf("list %v %v", list, err)
	}
}

func TestKeys_thereIsAMostAndDanglingEntriesGo(t *testing.T) {
	s, ctx := open(t), t.Context()
	n := NewKey{Workspace: "acme", Label: "ci", Role: identity.RoleMember, Scope: identity.ScopeDeploy, By: jane, ByRole: identity.RoleOwner}
	l := &gatewaystorev1.ApiKeyList{}
	for i := range maxKeys - 1 { // of creates that were cut off long ago
		l.Entries = append(l.Entries, &gatewaystorev1.ApiKeyList_Entry{Id: fmt.Sprintf("%016x", i), CreateTime: timestamppb.New(time.Now().Add(-time.Hour))})
	}
	if _, err := s.keyLists.Create(ctx, "acme", l); err != nil {
		t.Fatal(err)
	}
	k, secret, err := s.CreateKey(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.CreateKey(ctx, n); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("one too many: %v", err)
	}
	if found, ok, err := s.FindKey(ctx, secret); err != nil || !ok || found.GetId() != k.GetId() {
		t.Errorf("found %v %v %v", found, ok, err)
	}
	if err := s.DeleteKey(ctx, "acme", k.GetId()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.FindKey(ctx, secret); ok || err != nil {
		t.Errorf("a deleted key works: %v", err)
	}
	rest, _, err := s.keyLists.Get(ctx, "acme")
	if err != nil || len(rest.GetEntries()) != 0 {
		t.Errorf("entries left: %d %v", len(rest.GetEntries()), err)
	}
	if _, _, err := s.CreateKey(ctx, n); err != nil {
		t.Errorf("no room after cleaning: %v", err)
	}
}

func TestSessionEpoch(t *testing.T) {
	s, ctx := open(t), t.Context()
	for want := range uint64(3) {
		got, _, err := s.SessionEpoch(ctx, jane.ID, "")
		if err != nil || got != want {
			t.Errorf("epoch %d, not %d: %v", got, want, err)
		}
		if err := s.RaiseSessionEpoch(ctx, jane.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSharedLabels_tellNamesakesApart(t *testing.T) {
	team := func(members ...*gatewaystorev1.TeamMember) *gatewaystorev1.Team {
		return &gatewaystorev1.Team{Members: members}
	}
	is := func(subject, label, email string) *gatewaystorev1.TeamMember {
		return &gatewaystorev1.TeamMember{Subject: subject, Label: label, Email: email}
	}
	for _, c := range []struct {
		why  string
		team *gatewaystorev1.Team
		want map[string]string
	}{
		{"each has a name", team(is("a", "Ann", "a@x"), is("b", "Ben", "b@x")), nil},
		{"an address behind the name", team(is("a", "Ann", "a@x"), is("b", "Ann", "b@x"), is("c", "Ben", "c@x")), map[string]string{"a": "Ann (a@x)", "b": "Ann (b@x)"}},
		{"names are alike to people", team(is("a", "Ann", "a@x"), is("b", "ann", "b@x")), map[string]string{"a": "Ann (a@x)", "b": "ann (b@x)"}},
		{"no address", team(is("person-12345678", "Ann", ""), is("b", "Ann", "b@x")), map[string]string{"person-12345678": "Ann (12345678)", "b": "Ann (b@x)"}},
		{"one address", team(is("person-1", "Ann", "a@x"), is("person-2", "Ann", "a@x")), map[string]string{"person-1": "Ann (person-1)", "person-2": "Ann (person-2)"}},
		{"a name that looks like another's", team(is("a", "Ann", "a@x"), is("b", "Ann", "b@x"), is("c", "Ann (a@x)", "c@x")), map[string]string{"a": "Ann (a)", "b": "Ann (b@x)"}},
	} {
		if got := sharedLabels(c.team); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v", c.why, got)
		}
	}
}
