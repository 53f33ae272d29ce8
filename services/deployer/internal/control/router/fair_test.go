package router_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/control/router"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// stalled are apps of which those of the workspace "slow" do not answer until the test lets them.
type stalled struct {
	goOn chan struct{}
	mu   sync.Mutex
	ask  int
}

func (s *stalled) App(context.Context, lane.Key) (*storev1.App, error) {
	return nil, errors.New("no app")
}
func (s *stalled) NameGiven(context.Context, string, string, string) error { return nil }

func (s *stalled) Index(ctx context.Context, workspace, _ string) (*storev1.RepositoryIndex, error) {
	if workspace == "slow" {
		s.mu.Lock()
		s.ask++
		s.mu.Unlock()
		select {
		case <-s.goOn:
		case <-ctx.Done():
		}
	}
	return &storev1.RepositoryIndex{}, nil
}

func (s *stalled) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ask
}

// said are outcomes by workspace.
type said struct {
	mu  sync.Mutex
	all map[string]int
}

func (s *said) Put(_ context.Context, outcomes ...*webhookv1.RecordedOutcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range outcomes {
		s.all[o.GetWorkspace()]++
	}
	return nil
}

func (s *said) await(t *testing.T, workspace string, n int) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.all[workspace] != n {
			return fmt.Errorf("%d of %d pushes of %s were decided", s.all[workspace], n, workspace)
		}
		return nil
	})
}

// Pushes of more repositories of one workspace than are decided at once stand still; another's is decided.
func TestRun_aWorkspaceThatStandsStillHoldsUpNoOther(t *testing.T) {
	js := testkit.JS(t)
	if _, err := stream.Ensure(t.Context(), js, stream.Pushes, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	apps, outcomes := &stalled{goOn: make(chan struct{})}, &said{all: map[string]int{}}
	r := &router.Router{Apps: apps, Outcomes: outcomes, Logger: testkit.Logger(t).Logger, Now: time.Now}
	push := func(workspace, repository string) {
		t.Helper()
		subject, err := stream.PushSubject(workspace, repository)
		if err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(&eventsv1.PushEvent{
			Id: "hook.1.0", Workspace: workspace, Repository: repository, Webhook: "hook", Delivery: 1,
			RefType: eventsv1.PushEvent_BRANCH, Ref: "main", Action: eventsv1.PushEvent_UPDATED,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (stream.Publisher{JS: js, Timeout: time.Minute}).Publish(t.Context(), &nats.Msg{Subject: subject, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	const many = 200
	for i := range many {
		push("slow", fmt.Sprint("repository-", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := r.Run(ctx, js, nil); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	testkit.Eventually(t, time.Minute, func() error {
		if apps.asked() == 0 {
			return errors.New("nothing stands still yet")
		}
		return nil
	})
	push("other", "web")
	outcomes.await(t, "other", 1)
	close(apps.goOn)
	outcomes.await(t, "slow", many)
}
