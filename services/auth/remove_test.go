package auth_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// stored reads the record as it lies in JetStream.
func (s *stack) stored(workspace string) *authstorev1.Integration {
	s.t.Helper()
	st, err := s.nats.JS().Stream(s.t.Context(), "KV_DEVPILOT_AUTH_INTEGRATIONS")
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := st.GetLastMsgForSubject(s.t.Context(), "$KV.DEVPILOT_AUTH_INTEGRATIONS."+workspace+".bitbucket")
	if err != nil {
		s.t.Fatal(err)
	}
	rec := &authstorev1.Integration{}
	if err := proto.Unmarshal(m.Data, rec); err != nil {
		s.t.Fatal(err)
	}
	return rec
}

// onDisk names the files below dir that hold one of the values, or part of it.
func onDisk(t *testing.T, dir string, values map[string][]byte) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, v := range values {
			// A piece from the middle: overwriting only an end would not do.
			if piece := v[len(v)/3 : len(v)/3+24]; bytes.Contains(content, piece) {
				found = append(found, name+" in "+filepath.Base(path))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// "Tokens deleted" is meant literally: after a removal neither the tokens nor what was stored of
// them is anywhere on disk, also not of replaced pairs, spares and earlier connections.
func TestRemove_erasesTokensOnDisk(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	values := map[string][]byte{}
	collect := func(name string) {
		t.Helper()
		r, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
		if err != nil {
			t.Fatal(err)
		}
		rec := s.stored("acme-inc")
		values[name+" access, plain"] = []byte(r.GetAccessToken())
		values[name+" access, stored"] = rec.GetAccess().GetSealed()
		values[name+" refresh, stored"] = rec.GetRefresh().GetSealed()
		for n, sp := range rec.GetSpares() {
			values[fmt.Sprintf("%s spare %d, stored", name, n)] = sp.GetSealed()
		}
	}
	s.connect(i, "acme-inc", "jane-dev")
	s.connect(i, "bystander", "acme-admin")
	collect("first")
	s.expire()
	collect("renewed")
	s.forward(20 * time.Second)
	if _, err := i.gateway.RefreshIntegration(s.admin("acme-inc"), &authv1.RefreshIntegrationRequest{Workspace: "acme-inc"}); err != nil {
		t.Fatal(err)
	}
	collect("by hand")
	if len(s.stored("acme-inc").GetSpares()) == 0 {
		t.Fatal("no spare: the test shows too little")
	}
	s.connect(i, "acme-inc", "jane-dev")
	collect("connected again")

	current := map[string][]byte{"connected again access, stored": values["connected again access, stored"]}
	if found := onDisk(t, s.natsDir, current); len(found) == 0 {
		t.Fatal("the current token is not found on disk: the search shows nothing")
	}
	replaced := map[string][]byte{}
	for name, v := range values {
		if !strings.HasPrefix(name, "connected again") {
			replaced[name] = v
		}
	}
	if found := onDisk(t, s.natsDir, replaced); len(found) > 0 {
		t.Errorf("replaced, and still on disk: %v", found)
	}

	r, err := i.gateway.RemoveIntegration(s.admin("acme-inc"), &authv1.RemoveIntegrationRequest{Workspace: "acme-inc"})
	if err != nil || !r.GetRemoved() || r.GetIntegration().GetState() != authv1.Integration_NOT_CONNECTED || r.GetIntegration().GetAccount() != nil {
		t.Fatalf("%v %v", r, err)
	}
	if found := onDisk(t, s.natsDir, values); len(found) > 0 {
		t.Errorf("removed, and still on disk: %v", found)
	}
	_, err = issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	wantReason(t, err, apierr.ReasonNotConnected)
	// Again: nothing to remove, no error.
	if r, err := i.gateway.RemoveIntegration(s.admin("acme-inc"), &authv1.RemoveIntegrationRequest{Workspace: "acme-inc"}); err != nil || r.GetRemoved() {
		t.Errorf("%v %v", r, err)
	}
	// After a restart of the server the store is still whole, and still empty of them.
	s.nats.Restart()
	if found := onDisk(t, s.natsDir, values); len(found) > 0 {
		t.Errorf("back on disk after a restart: %v", found)
	}
	testkit.Eventually(t, timeout, func() error {
		_, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "bystander"})
		return err
	})
	s.logs.MustNotContain(t, string(values["first access, plain"]), string(values["renewed access, plain"]))
}

func TestRemove_etag(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	old := s.connect(i, "acme-inc", "jane-dev")
	fresh := s.connect(i, "acme-inc", "acme-admin")
	if old.GetEtag() == fresh.GetEtag() {
		t.Fatal("the etag did not change")
	}
	remove := func(etag string) error {
		_, err := i.gateway.RemoveIntegration(s.admin("acme-inc"), &authv1.RemoveIntegrationRequest{Workspace: "acme-inc", Etag: etag})
		return err
	}
	wantReason(t, remove(old.GetEtag()), apierr.ReasonEtagMismatch)
	if got := s.get(i, "acme-inc"); got.GetEtag() != fresh.GetEtag() {
		t.Errorf("etag %s, then %s", fresh.GetEtag(), got.GetEtag())
	}
	if err := remove(fresh.GetEtag()); err != nil {
		t.Error(err)
	}
	wantReason(t, remove(fresh.GetEtag()), apierr.ReasonEtagMismatch)
}

func TestEvents_tellOfConnectsAndRemovals(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.start("P2") // replicas share the relay
	next := s.events("acme-inc")
	s.connect(i, "acme-inc", "jane-dev")
	if e := next(); e.GetKind() != "integration" || e.GetId() != "bitbucket" || e.GetWorkspace() != "acme-inc" || e.GetService() != "auth" || e.GetDeleted() {
		t.Errorf("%v", e)
	}
	if _, err := i.gateway.RemoveIntegration(s.admin("acme-inc"), &authv1.RemoveIntegrationRequest{Workspace: "acme-inc"}); err != nil {
		t.Fatal(err)
	}
	for e := next(); !e.GetDeleted(); e = next() {
		if e.GetKind() != "integration" {
			t.Errorf("%v", e)
		}
	}
}

// events follows the workspace's change events.
func (s *stack) events(workspace string) func() *eventsv1.ChangeEvent {
	s.t.Helper()
	js := s.nats.JS()
	if _, err := stream.Ensure(s.t.Context(), js, stream.Events, stream.Options{}); err != nil {
		s.t.Fatal(err)
	}
	subject, err := stream.EventsOfWorkspace(workspace)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := js.OrderedConsumer(s.t.Context(), stream.EventsStream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		s.t.Fatal(err)
	}
	return func() *eventsv1.ChangeEvent {
		s.t.Helper()
		m, err := c.Next(jetstream.FetchMaxWait(timeout))
		if err != nil {
			s.t.Fatal(err)
		}
		e := &eventsv1.ChangeEvent{}
		if err := proto.Unmarshal(m.Data(), e); err != nil {
			s.t.Fatal(err)
		}
		return e
	}
}
