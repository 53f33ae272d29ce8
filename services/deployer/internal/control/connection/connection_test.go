package connection

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// world is auth, and the schedule that hears what a connection makes possible.
type world struct {
	in     *authv1.Integration
	resume []string
}

func (w *world) Integration(context.Context, string) (*authv1.Integration, error) { return w.in, nil }

func (w *world) Touch(_ context.Context, _ reminder.Kind, _, what string, at time.Time) (uint64, error) {
	if !at.After(time.Now()) {
		w.resume = append(w.resume, what)
	}
	return 1, nil
}

// hasty is a schedule that follows an entry in the moment in which it is due.
type hasty struct {
	t       *testing.T
	handler func(ctx context.Context, workspace, what string, attempts int) (time.Time, error)
	later   []time.Time
	down    bool // at the entries that are due
}

func (h *hasty) Touch(ctx context.Context, _ reminder.Kind, workspace, what string, at time.Time) (uint64, error) {
	switch {
	case at.After(time.Now()):
		h.later = append(h.later, at)
	case h.down:
		return 0, errors.New("the store is away")
	default:
		if _, err := h.handler(ctx, workspace, what, 1); err != nil {
			h.t.Error(err)
		}
	}
	return 1, nil
}

// A connection is carried on also where the schedule is quicker than the store, and where the process dies
// in between: there is an entry before the record, and one after it.
func TestRefresh_noScheduleIsTooQuickForIt(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]bool{"quick": false, "died in between": true} {
		t.Run(name, func(t *testing.T) {
			log := testkit.Logger(t).Logger
			st, err := store.Open(t.Context(), testkit.NATS(t).JS(), log)
			if err != nil {
				t.Fatal(err)
			}
			h := &house{repositories: []string{"a"}}
			due := &hasty{t: t, down: down}
			w := &world{in: &authv1.Integration{State: authv1.Integration_CONNECTED, ConnectionId: "one"}}
			c := New(Config{Bucket: st.Connections, Integrations: w, Repositories: h, Due: due, Dispatcher: &lane.Dispatcher{Lanes: st.Lanes}, Logger: log, Now: time.Now})
			due.handler = c.Resume(h, h)
			if _, err := c.Refresh(t.Context(), "ws"); err != nil {
				t.Fatal(err)
			}
			if len(due.later) != 1 || time.Until(due.later[0]) > reachGrace {
				t.Errorf("before it was stored it was to be carried on at %v", due.later)
			}
			if down {
				if _, err := due.handler(t.Context(), "ws", unknown, 1); err != nil { // what the first entry does
					t.Fatal(err)
				}
			}
			rec, _, err := st.Connections.Get(t.Context(), "ws")
			if err != nil || rec.GetCheckedConnectionId() != "one" || !slices.Equal(h.polled, []string{"a"}) {
				t.Errorf("%v, %v, polled %q", rec, err, h.polled)
			}
		})
	}
}

// TestRefresh_whatAConnectionCarriesOn: only where deliveries were turned away until now, none of what is
// found is waited for. A connection of which nothing was known before turned nothing away.
func TestRefresh_whatAConnectionCarriesOn(t *testing.T) {
	t.Parallel()
	log := testkit.Logger(t).Logger
	st, err := store.Open(t.Context(), testkit.NATS(t).JS(), log)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{}
	c := New(Config{Bucket: st.Connections, Integrations: w, Due: w, Logger: log, Now: time.Now})
	connected := func(id string, only ...string) *authv1.Integration {
		in := &authv1.Integration{State: authv1.Integration_CONNECTED, ConnectionId: id}
		for _, workspace := range only {
			in.NarrowedTo = append(in.NarrowedTo, &authv1.NarrowedTo{Id: workspace})
		}
		return in
	}
	failing := connected("two", "acme")
	failing.State = authv1.Integration_REFRESH_FAILING
	for _, step := range []struct {
		name string
		in   *authv1.Integration
		want []string
	}{
		{"nothing was known", connected("one"), []string{unknown}},
		{"nothing is new", connected("one"), nil},
		{"disconnected", &authv1.Integration{State: authv1.Integration_NOT_CONNECTED}, nil},
		{"connected again", connected("one"), []string{reachAll}},
		{"another account", connected("two"), []string{reachAll}},
		{"narrowed", connected("two", "acme"), []string{reachAll}},
		{"not refreshed", failing, nil},
		{"refreshed again", connected("two", "acme"), []string{waiting}},
		{"widened", connected("two"), []string{reachAll}},
	} {
		w.in, w.resume = step.in, nil
		if _, err := c.Refresh(t.Context(), "ws"); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.resume, step.want) {
			t.Errorf("%s: %q, want %q", step.name, w.resume, step.want)
		}
	}
}

// house has an app for each of its repositories, and Bitbucket's API, which tells of those that it has an answer for.
type house struct {
	repositories []string
	away         string // of which the API says nothing for now
	asked        []string
	named        []string
	polled       []string
}

func (h *house) Apps(context.Context, string) ([]string, error) { return h.repositories, nil }

func (h *house) App(_ context.Context, k lane.Key) (*storev1.App, error) {
	return &storev1.App{Repository: k.App}, nil
}

func (h *house) Reached(context.Context, string, string, *storev1.Trouble) error { return nil }

func (h *house) Named(_ context.Context, _ string, r *repov1.Repository) error {
	h.named = append(h.named, r.GetId())
	return nil
}

func (h *house) Repository(_ context.Context, _, id string) (*repov1.Repository, error) {
	h.asked = append(h.asked, id)
	if id == h.away {
		return nil, apierr.New(apierr.ReasonBitbucketRateLimited, "Bitbucket's limit is reached.")
	}
	return &repov1.Repository{Id: id}, nil
}

func (h *house) PollNow(_ context.Context, _, id string, _ bool) error {
	h.polled = append(h.polled, id)
	return nil
}

// A connection that is well again has every repository polled at once, also while Bitbucket's API has no answer
// about one of them: for as long as it has none, neither that one nor its neighbours would say where they stand.
func TestResume_noPollWaitsForBitbucketsAPI(t *testing.T) {
	t.Parallel()
	log := testkit.Logger(t).Logger
	st, err := store.Open(t.Context(), testkit.NATS(t).JS(), log)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{repositories: []string{"a", "b", "c"}, away: "a"}
	c := New(Config{Bucket: st.Connections, Repositories: h, Dispatcher: &lane.Dispatcher{Lanes: st.Lanes}, Logger: log, Now: time.Now})
	if _, err := st.Connections.Create(t.Context(), "ws", &storev1.Connection{ConnectionId: "one"}); err != nil {
		t.Fatal(err)
	}
	checked := func() string {
		rec, _, err := st.Connections.Get(t.Context(), "ws")
		if err != nil {
			t.Fatal(err)
		}
		return rec.GetCheckedConnectionId()
	}
	resume := c.Resume(h, h)
	if _, err := resume(t.Context(), "ws", reachAll, 1); !apierr.Has(err, apierr.ReasonBitbucketRateLimited) {
		t.Errorf("it is not tried again: %v", err)
	}
	if !slices.Equal(h.polled, h.repositories) || !slices.Equal(h.named, []string{"b", "c"}) || checked() != "" {
		t.Errorf("polled %q, named %q, checked %q", h.polled, h.named, checked())
	}
	h.away = ""
	if _, err := resume(t.Context(), "ws", reachAll, 2); err != nil {
		t.Error(err)
	}
	if checked() != "one" || !maps.Equal(map[string]bool{"a": true, "b": true, "c": true}, set(h.named)) {
		t.Errorf("named %q, checked %q", h.named, checked())
	}
}

func set(list []string) map[string]bool {
	out := map[string]bool{}
	for _, s := range list {
		out[s] = true
	}
	return out
}
