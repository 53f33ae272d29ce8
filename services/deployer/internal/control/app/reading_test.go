package app

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const wait = 15 * time.Second

// everythingOK are connections and servers without trouble.
type everythingOK struct{}

func (everythingOK) Get(context.Context, string) (*storev1.Connection, error)     { return nil, nil }
func (everythingOK) Shown(context.Context, string) (*storev1.Connection, error)   { return nil, nil }
func (everythingOK) Refresh(context.Context, string) (*storev1.Connection, error) { return nil, nil }
func (everythingOK) Known(context.Context, string) (bool, error)                  { return true, nil }
func (everythingOK) Offline(string) (time.Time, bool)                             { return time.Time{}, false }
func (everythingOK) Names() []string                                              { return []string{"default"} }

func (everythingOK) HookRunner(string) string { return "bubblewrap" }

// stage is a service over a store, whose copies can be stopped.
type stage struct {
	*Service
	t      *testing.T
	nats   *testkit.NATSServer
	store  *store.Store
	freeze func()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	st := &stage{t: t, nats: testkit.NATS(t)}
	st.store = openStore(t, st.nats)
	copies := store.NewCopies(st.store, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- copies.Run(ctx) }()
	st.freeze = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	testkit.Eventually(t, wait, func() error { return copies.Ready(t.Context()) })
	st.Service = New(Config{
		Records: &apps.Records{Store: st.store}, Store: st.store, Copies: copies, Dispatcher: &lane.Dispatcher{Lanes: st.store.Lanes}, Connections: everythingOK{},
		Servers: everythingOK{}, Logger: testkit.Logger(t).Logger, Now: time.Now,
	})
	return st
}

// openStore is the store as a process of its own has it.
func openStore(t *testing.T, nats *testkit.NATSServer) *store.Store {
	t.Helper()
	_, js := nats.Connect()
	s, err := store.Open(t.Context(), js, testkit.Logger(t).Logger)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must[A any](v A, err error) func(testing.TB) A {
	return func(t testing.TB) A {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// add stores an app with a history, as another process does.
func add(t *testing.T, s *store.Store, id string, deployments int32) lane.Key {
	t.Helper()
	k := lane.Key{Workspace: "acme-inc", App: id}
	var rev uint64
	for n := int32(1); n <= deployments; n++ {
		rec := &storev1.Deployment{Generation: 1, Deployment: &deployerv1.Deployment{
			Workspace: k.Workspace, App: k.App, Number: n, State: deployerv1.Deployment_COMPLETED, Branch: "main", CreateTime: timestamppb.New(time.Unix(int64(n), 0)),
		}}
		rev = must(s.Deployments.Create(t.Context(), k.Record(n), rec))(t)
	}
	must(s.Lanes.Create(t.Context(), k.String(), &storev1.Lane{Generation: 1, LastNumber: deployments, RecordsRevision: rev}))(t)
	must(s.Apps.Create(t.Context(), k.String(), &storev1.App{Workspace: k.Workspace, Id: id, Repository: "r", Branch: "main", Generation: 1}))(t)
	return k
}

// A copy that stands still is a copy that lags: everything that is written after it is read from the
// leader.
func TestReading_afterAWriteOnALaggingCopy(t *testing.T) {
	s := newStage(t)
	other := openStore(t, s.nats)
	web := add(t, other, "web", 2)
	if a := must(s.Get(t.Context(), web))(t); a.GetLatest().GetNumber() != 2 {
		t.Fatalf("%v", a)
	}
	s.freeze()

	rev := must(second(other.Apps.Update(t.Context(), web.String(), func(a *storev1.App) (*storev1.App, error) {
		a.Branch = "release"
		return a, nil
	})))(t)
	if a := must(s.Get(t.Context(), web))(t); a.GetBranch() != "release" || a.GetEtag() != Etag(rev) {
		t.Errorf("after a save: branch %s, etag %s, want release and %s", a.GetBranch(), a.GetEtag(), Etag(rev))
	}
	add(t, other, "shop", 1)
	got, next, err := listed(t.Context(), s, "acme-inc", identity.Apps{}, "", 10)
	if err != nil || next != "" || len(got) != 2 || got[0].GetId() != "shop" || got[1].GetId() != "web" {
		t.Errorf("after a creation: %v, %q, %v", got, next, err)
	}
	must(second(other.Deployments.Update(t.Context(), web.Record(2), func(d *storev1.Deployment) (*storev1.Deployment, error) {
		d.Deployment.ProgressPercent = 42
		return d, nil
	})))(t)
	if d := must(s.Deployment(t.Context(), web, 2))(t); d.GetProgressPercent() != 42 {
		t.Errorf("after progress: %v", d)
	}
	ds, _, err := s.Deployments(t.Context(), web, Filter{Branch: "main"}, 0, 10)
	if err != nil || len(ds) != 2 || ds[0].GetProgressPercent() != 42 {
		t.Errorf("history: %v, %v", ds, err)
	}
	if err := other.Apps.Delete(t.Context(), web.String(), 0); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Get(t.Context(), web); err == nil {
		t.Errorf("after a deletion: %v", a)
	}
	if ids, err := s.Apps(t.Context(), "acme-inc"); err != nil || len(ids) > 2 { // the marker may be listed
		t.Errorf("after a deletion: %v, %v", ids, err)
	}
	if got, _, err = listed(t.Context(), s, "acme-inc", identity.Apps{}, "", 10); err != nil || len(got) != 1 {
		t.Errorf("after a deletion: %v, %v", got, err)
	}
}

func second[A, B any](_ A, b B, err error) (B, error) { return b, err }

// The lane tells which deployments are written: a copy of them that is older is not shown.
func TestReading_deploymentsAreAsNewAsTheirLane(t *testing.T) {
	s := newStage(t)
	other := openStore(t, s.nats)
	web := add(t, other, "web", 1)
	must(s.Get(t.Context(), web))(t)
	dispatcher := &lane.Dispatcher{Lanes: other.Lanes, Records: other.Deployments}
	l := must(dispatcher.Change(t.Context(), web, func(l *storev1.Lane) error {
		l.LastNumber, l.OutboxSeq, l.Armed = 2, 1, true
		l.Outbox = append(l.Outbox, &storev1.RecordChange{Number: 2, Seq: 1, Change: &storev1.RecordChange_Created{
			Created: &storev1.Deployment{Generation: 1, Deployment: &deployerv1.Deployment{Number: 2, State: deployerv1.Deployment_PENDING}},
		}})
		return nil
	}))(t)
	s.freeze()
	if err := dispatcher.Flush(t.Context(), web, l); err != nil {
		t.Fatal(err)
	}
	written, _, err := other.Lanes.Get(t.Context(), web.String())
	if err != nil || len(written.GetOutbox()) != 0 || written.GetRecordsRevision() == 0 {
		t.Fatalf("%v, %v", written, err)
	}
	if a := must(s.Get(t.Context(), web))(t); a.GetLatest().GetNumber() != 2 {
		t.Errorf("latest is %v", a.GetLatest())
	}
}

// A filter looks through the whole history at once: no empty page with a token to go on.
func TestDeployments_aFilterThatMatchesLittleIsOnePage(t *testing.T) {
	s := newStage(t)
	const all = 3 * scan
	web := add(t, s.store, "web", all)
	var page []*deployerv1.Deployment
	read := func(f Filter, before int32) (next int32) {
		t.Helper()
		var err error
		if page, next, err = s.Deployments(t.Context(), web, f, before, 2); err != nil {
			t.Fatal(err)
		}
		return next
	}
	if next := read(Filter{Branch: "none"}, 0); next != 0 || len(page) != 0 {
		t.Errorf("%d deployments, next %d", len(page), next)
	}
	oldest := Filter{Before: timestamppb.New(time.Unix(4, 0))}
	if next := read(oldest, 0); next != 2 || len(page) != 2 || page[0].GetNumber() != 3 || page[1].GetNumber() != 2 {
		t.Errorf("%v, next %d", page, next)
	}
	if next := read(oldest, 2); next != 0 || len(page) != 1 || page[0].GetNumber() != 1 {
		t.Errorf("%v, next %d", page, next)
	}
}

// Versions before kept a record of all ids. What is listed now are the apps that there are.
func TestList_ofAStoreOfBefore(t *testing.T) {
	s := newStage(t)
	before := must(openIndex(t, s.nats))(t)
	must(before.Create(t.Context(), "acme-inc", &storev1.WorkspaceIndex{Apps: []string{"ghost", "web"}}))(t)
	for _, id := range []string{"web", "new"} {
		k := lane.Key{Workspace: "acme-inc", App: id}
		must(s.store.Lanes.Create(t.Context(), k.String(), &storev1.Lane{Generation: 1}))(t)
		must(s.store.Apps.Create(t.Context(), k.String(), &storev1.App{Workspace: k.Workspace, Id: id, Repository: "r", Branch: "main", Generation: 1}))(t)
	}
	got, next, err := listed(t.Context(), s, "acme-inc", identity.Apps{}, "", 10)
	if err != nil || next != "" || fmt.Sprint(ids(got)) != "[new web]" {
		t.Errorf("%v, %q, %v", ids(got), next, err)
	}
	if got, next, err = listed(t.Context(), s, "acme-inc", identity.Apps{}, "", 1); err != nil || next != "new" || fmt.Sprint(ids(got)) != "[new]" {
		t.Errorf("%v, %q, %v", ids(got), next, err)
	}
	if got, next, err = listed(t.Context(), s, "acme-inc", identity.Apps{}, next, 1); err != nil || next != "" || fmt.Sprint(ids(got)) != "[web]" {
		t.Errorf("%v, %q, %v", ids(got), next, err)
	}
	if got, _, err = listed(t.Context(), s, "acme", identity.Apps{}, "", 10); err != nil || len(got) != 0 {
		t.Errorf("another workspace: %v, %v", ids(got), err)
	}
}

// listed is a page in the order of ids, after one of them.
func listed(ctx context.Context, s *stage, workspace string, limit identity.Apps, after string, size int) (page []*deployerv1.App, next string, err error) {
	var place *Spot
	if after != "" {
		place = &Spot{ID: after}
	}
	list, err := s.List(ctx, Question{Workspace: workspace, Apps: limit, Order: ByID}, place, size)
	if list.Next != nil {
		next = list.Next.ID
	}
	return list.Apps, next, err
}

func ids(as []*deployerv1.App) (out []string) {
	for _, a := range as {
		out = append(out, a.GetId())
	}
	return out
}

func openIndex(t *testing.T, nats *testkit.NATSServer) (*kv.Bucket[storev1.WorkspaceIndex, *storev1.WorkspaceIndex], error) {
	t.Helper()
	_, js := nats.Connect()
	return kv.Open[storev1.WorkspaceIndex](t.Context(), js, kv.Config{Name: "deployer-workspaces", Inventory: "deployer"})
}
