package bitbucket

import (
	"testing"
	"time"
)

func TestHeld(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	branches := func(object string) Call { return Call{ResourceRepositories, RouteBranches, object} }
	repository := func(object string) Call { return Call{ResourceRepositories, RouteRepository, object} }
	tests := map[string]struct {
		refused map[Call]time.Time
		call    Call
		want    int // seconds; 0: not held
	}{
		"nothing was refused":               {nil, branches("a"), 0},
		"the call itself":                   {map[Call]time.Time{branches("a"): at(30)}, branches("a"), 30},
		"another object":                    {map[Call]time.Time{branches("a"): at(30)}, branches("b"), 0},
		"another route":                     {map[Call]time.Time{branches("a"): at(30)}, repository("a"), 0},
		"another resource":                  {map[Call]time.Time{branches("a"): at(30)}, Call{ResourceHooks, RouteBranches, "a"}, 0},
		"what is over":                      {map[Call]time.Time{branches("a"): at(0)}, branches("a"), 0},
		"two objects are the route":         {map[Call]time.Time{branches("a"): at(30), branches("b"): at(20)}, branches("c"), 20},
		"and no other route":                {map[Call]time.Time{branches("a"): at(30), branches("b"): at(20)}, repository("c"), 0},
		"its own time is the longer one":    {map[Call]time.Time{branches("a"): at(30), branches("b"): at(20)}, branches("a"), 30},
		"its own time is the shorter one":   {map[Call]time.Time{branches("a"): at(30), branches("b"): at(20), branches("c"): at(10)}, branches("c"), 20},
		"two routes are the object":         {map[Call]time.Time{branches("a"): at(30), repository("a"): at(20)}, Call{ResourceRepositories, RouteStatuses, "a"}, 20},
		"and no other object":               {map[Call]time.Time{branches("a"): at(30), repository("a"): at(20)}, branches("b"), 0},
		"two routes of two objects":         {map[Call]time.Time{branches("a"): at(30), repository("b"): at(20)}, Call{ResourceRepositories, RouteStatuses, "c"}, 20},
		"of which one is over":              {map[Call]time.Time{branches("a"): at(30), repository("b"): at(-1)}, Call{ResourceRepositories, RouteStatuses, "c"}, 0},
		"of the account, which has no name": {map[Call]time.Time{{ResourceOther, RouteUser, ""}: at(5)}, Call{ResourceOther, RouteUser, ""}, 5},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Held(tt.call, tt.refused, now)
			if tt.want == 0 && !got.IsZero() || tt.want != 0 && !got.Equal(at(tt.want)) {
				t.Errorf("held until %v, want %d s after %v", got, tt.want, now)
			}
		})
	}
}
