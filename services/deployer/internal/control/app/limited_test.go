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
	for _, q := range []Question{{Order: ByID}, {Order: ByUpdateTime}, {Order: ByNeed}, {Order: ByMatch, Query: "main"}, {Order: ByID, AutoDeploy: new(false)}} {
		q.Workspace, q.Apps = "acme-inc", limit
		var ids []string
		var after *Spot
		for page := 0; page == 0 || after != nil; page++ {
			list, err := s.List(t.Context(), q, after, 1)
			if err != nil || page > 3 {
				t.Fatalf("%+v: page %d: %v", q, page, err)
			}
			for _, a := range list.Apps {
				ids = append(ids, a.GetId())
			}
			if list.Total != 2 {
				t.Errorf("%+v: a total of %d tells of the others", q, list.Total)
			}
			after = list.Next
		}
		slices.Sort(ids)
		if !slices.Equal(ids, []string{"api", "web"}) {
			t.Errorf("%+v: listed %v", q, ids)
		}
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
