package pipeline

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// progressEvery is the least pause between two writes of a deployment's progress, and before the first.
const progressEvery = 250 * time.Millisecond

// progress shows stages and percentages in the deployment's record. Writing never holds up the
// deployment: what could not be written in time is overtaken by what comes next, and the end is
// written by the lane.
type progress struct {
	store      Records
	key        string
	generation int64
	epoch      int64
	now        func() time.Time

	mu      sync.Mutex
	stages  []*deployerv1.StageRecord
	percent int32
	dirty   bool
	kick    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

func newProgress(r Records, key string, generation, epoch int64, now func() time.Time) *progress {
	p := &progress{store: r, key: key, generation: generation, epoch: epoch, now: now,
		kick: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	go p.run()
	return p
}

func (p *progress) enter(s deployerv1.Deployment_Stage) {
	p.mu.Lock()
	p.stages = append(p.stages, &deployerv1.StageRecord{Stage: s, StartTime: timestamppb.New(p.now())})
	p.mu.Unlock()
	p.changed()
}

func (p *progress) leave(percent int32) {
	p.mu.Lock()
	p.stages[len(p.stages)-1].EndTime = timestamppb.New(p.now())
	p.percent = max(p.percent, percent)
	p.mu.Unlock()
	p.changed()
}

// within sets the percentage to done/all of the way between two.
func (p *progress) within(from, to int32, done, all int) {
	p.mu.Lock()
	if all > 0 {
		p.percent = max(p.percent, from+int32(int64(to-from)*int64(done)/int64(all)))
	}
	p.mu.Unlock()
	p.changed()
}

func (p *progress) changed() {
	p.mu.Lock()
	p.dirty = true
	p.mu.Unlock()
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// hooks shows the stage's hooks as they wait for their turn.
func (p *progress) hooks(hooks []*deployerv1.HookRecord) {
	p.mu.Lock()
	p.stages[len(p.stages)-1].Hooks = hooks
	p.mu.Unlock()
	p.changed()
}

// hook changes a hook of the stage that runs.
func (p *progress) hook(i int, fn func(*deployerv1.HookRecord)) {
	p.mu.Lock()
	fn(p.stages[len(p.stages)-1].Hooks[i])
	p.mu.Unlock()
	p.changed()
}

// skipped adds a stage that is not entered, for its hooks that do not run.
func (p *progress) skipped(s deployerv1.Deployment_Stage, hooks []*deployerv1.HookRecord) {
	p.mu.Lock()
	p.stages = append(p.stages, &deployerv1.StageRecord{Stage: s, Hooks: hooks})
	p.mu.Unlock()
}

// stage is the stage that runs.
func (p *progress) stage() deployerv1.Deployment_Stage {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.stages) == 0 {
		return deployerv1.Deployment_STAGE_UNSPECIFIED
	}
	return p.stages[len(p.stages)-1].GetStage()
}

// records is a copy of the stages; the one that runs ends now.
func (p *progress) records() []*deployerv1.StageRecord {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*deployerv1.StageRecord, len(p.stages))
	for i, s := range p.stages {
		out[i] = proto.CloneOf(s)
		if out[i].GetEndTime() == nil && out[i].GetStartTime() != nil {
			out[i].EndTime = timestamppb.New(p.now())
		}
	}
	return out
}

func (p *progress) run() {
	defer close(p.stopped)
	for {
		select {
		case <-p.stop:
			return
		case <-p.kick:
		}
		// What ends sooner needs no progress: each write is synced, and told to all who watch.
		t := time.NewTimer(progressEvery)
		select {
		case <-p.stop:
			t.Stop()
			return
		case <-t.C:
		}
		p.write()
	}
}

// close ends the writing; the end itself is the lane's to write.
func (p *progress) close() {
	p.once.Do(func() { close(p.stop) })
	<-p.stopped
}

func (p *progress) write() {
	p.mu.Lock()
	if !p.dirty || len(p.stages) == 0 {
		p.mu.Unlock()
		return
	}
	p.dirty = false
	percent := p.percent
	stages := make([]*deployerv1.StageRecord, len(p.stages))
	for i, s := range p.stages {
		stages[i] = proto.CloneOf(s)
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// A write that fails is no trouble: see above.
	_, _, _ = p.store.Update(ctx, p.key, func(rec *storev1.Deployment) (*storev1.Deployment, error) {
		if rec.GetGeneration() != p.generation || rec.GetEpoch() != p.epoch || lane.Terminal(rec.GetDeployment().GetState()) {
			return nil, kv.ErrSkip
		}
		d := rec.GetDeployment()
		d.Stages, d.Stage, d.ProgressPercent = stages, stages[len(stages)-1].GetStage(), percent
		return rec, nil
	})
}
