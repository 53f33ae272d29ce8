package rotation

import (
	"flag"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// deep explores further, millions of worlds, for whoever changes a rule:
// go test ./services/auth/internal/rotation -run Protocol -model.deep -timeout 1h
var deep = flag.Bool("model.deep", false, "explore the refresh protocol further; takes minutes")

func TestProtocol_everyInterleaving(t *testing.T) {
	scenarios := []scenario{
		{name: "stalls, no grace", processes: 2, calls: 4, leases: 6, ticks: 1},
		{name: "stalls, no grace, user acts", processes: 2, user: true, calls: 4, leases: 4},
		{name: "stalls, grace", processes: 2, grace: true, calls: 4, leases: 4, ticks: 2},
		{name: "stalls, grace, user acts", processes: 2, grace: true, user: true, calls: 3, leases: 4, ticks: 1},
		{name: "stalls, grace, lock-out", processes: 2, grace: true, lockOut: true, calls: 4, leases: 4, ticks: 2},
		{name: "kills and lost answers, grace", processes: 2, grace: true, crash: true, lost: true, calls: 4, leases: 5},
		{name: "kills and lost answers, no rotation", processes: 2, sameToken: true, crash: true, lost: true, user: true, calls: 3, leases: 3, ticks: 1},
		{name: "three processes, stalls, grace", processes: 3, grace: true, calls: 4, leases: 4},
		{name: "three processes, kills and lost answers, grace, user acts", processes: 3, grace: true, crash: true, lost: true, user: true, calls: 2, leases: 3},

		// With no grace a kill between Bitbucket's answer and our write loses the connection: nobody
		// but the dead process ever knew the token. DESIGN.md#a-token-that-never-races says so.
		{name: "inherent: a kill, no grace", processes: 2, crash: true, calls: 4, leases: 4, ticks: 1, want: []string{lostConnection, wronglyGivenUp}},
	}
	if *deep {
		scenarios = append(scenarios,
			scenario{name: "deep: lock-out, grace", processes: 2, grace: true, lockOut: true, calls: 6, leases: 6, ticks: 3},
			scenario{name: "deep: lock-out, no grace", processes: 2, lockOut: true, calls: 6, leases: 6, ticks: 3},
			scenario{name: "deep: lock-out, three processes", processes: 3, grace: true, lockOut: true, calls: 5, leases: 5, ticks: 1},
			scenario{name: "deep: lock-out, kills and lost answers", processes: 2, grace: true, lockOut: true, crash: true, lost: true, calls: 5, leases: 5},
			scenario{name: "deep: stalls", processes: 2, grace: true, calls: 6, leases: 6, ticks: 3},
			scenario{name: "deep: kills and lost answers", processes: 2, grace: true, crash: true, lost: true, calls: 6, leases: 7},
			scenario{name: "deep: three processes", processes: 3, grace: true, crash: true, lost: true, user: true, calls: 3, leases: 4},
		)
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			worlds, found := s.explore()
			t.Logf("%d worlds", worlds)
			for v, way := range found {
				if !slices.Contains(s.want, v) {
					t.Errorf("%s\n  %s", v, way)
				}
			}
			for _, v := range s.want {
				if found[v] == "" {
					t.Errorf("the model no longer finds %q, which cannot be prevented: does it still explore?", v)
				}
			}
		})
	}
}

// The model must be able to fail: with a rule broken on purpose it finds the accident that the rule
// prevents.
func TestProtocol_modelFindsBrokenRules(t *testing.T) {
	drop := func(gone func(*authstorev1.SpareToken) bool) func(_, next *authstorev1.Integration) *authstorev1.Integration {
		return func(_, next *authstorev1.Integration) *authstorev1.Integration {
			c := proto.CloneOf(next)
			c.Spares = slices.DeleteFunc(c.GetSpares(), gone)
			return c
		}
	}
	broken := []scenario{
		{
			name: "late answers dropped", processes: 2, grace: true, calls: 4, leases: 4, ticks: 1,
			sabotage: drop((*authstorev1.SpareToken).GetLate), want: []string{lostConnection},
		},
		{
			name: "replaced tokens dropped", processes: 2, grace: true, lost: true, calls: 4, leases: 4,
			sabotage: drop(func(s *authstorev1.SpareToken) bool { return !s.GetLate() }), want: []string{lostConnection},
		},
		{
			name: "one spare only", processes: 2, grace: true, lost: true, calls: 4, leases: 4,
			sabotage: func(_, next *authstorev1.Integration) *authstorev1.Integration {
				c := proto.CloneOf(next)
				c.Spares = c.GetSpares()[:min(1, len(c.GetSpares()))]
				return c
			},
			want: []string{lostConnection},
		},
		{
			name: "refused spares forgotten at once", processes: 2, grace: true, lockOut: true, calls: 4, leases: 4, ticks: 1,
			sabotage: func(_, next *authstorev1.Integration) *authstorev1.Integration {
				c := proto.CloneOf(next)
				if c.GetFailure().GetKind() == authstorev1.Failure_REFUSED {
					c.Spares = nil
				}
				return c
			},
			want: []string{lostConnection},
		},
		{
			name: "answers stored only under the lease", processes: 2, calls: 4, leases: 4, ticks: 1,
			sabotage: func(cur, next *authstorev1.Integration) *authstorev1.Integration {
				if next.GetLease() != nil && next.GetGeneration() > cur.GetGeneration() {
					return cur
				}
				return next
			},
			want: []string{lostConnection},
		},
	}
	for _, s := range broken {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			_, found := s.explore()
			for _, v := range s.want {
				if found[v] == "" {
					t.Errorf("the model should find %q, found only %v", v, found)
				}
			}
		})
	}
}
