package connection

import (
	"context"
	"slices"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// world is auth, and the schedule that hears what a connection makes possible.
type world struct {
	in     *authv1.Integration
	resume []string
}

func (w *world) Integration(context.Context, string) (*authv1.Integration, error) { return w.in, nil }

func (w *world) Touch(_ context.Context, _ reminder.Kind, _, what string, _ time.Time) (uint64, error) {
	w.resume = append(w.resume, what)
	return 1, nil
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
