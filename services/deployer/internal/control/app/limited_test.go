package app

import (
	"slices"
	"testing"

	"devpilot.io/bitbucket/pkg/identity"
)

// TestList_ofSomebodyLimitedToSomeApps: the others are in no page, nor in the history; pages go on where they were.
func TestList_ofSomebodyLimitedToSomeApps(t *testing.T) {
	s := newStage(t)
	store := openStore(t, s.nats)
	for _, id := range []string{"api", "docs", "shop", "web"} {
		add(t, store, id, 2)
	}
	limit := identity.LimitedTo("web", "api", "gone")
	var ids []string
	after := ""
	for page := 0; page == 0 || after != ""; page++ {
		list, next, err := s.List(t.Context(), "acme-inc", limit, after, 1)
		if err != nil || page > 3 {
			t.Fatalf("page %d: %v", page, err)
		}
		for _, a := range list {
			ids = append(ids, a.GetId())
		}
		after = next
	}
	if !slices.Equal(ids, []string{"api", "web"}) {
		t.Errorf("listed %v", ids)
	}
	ds, _, err := s.WorkspaceDeployments(t.Context(), "acme-inc", Filter{Apps: limit}, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]int{}
	for _, d := range ds {
		of[d.GetApp()]++
	}
	if len(of) != 2 || of["api"] != 2 || of["web"] != 2 {
		t.Errorf("history of %v", of)
	}
}
