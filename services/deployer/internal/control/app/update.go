package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// updateTries is how often an update without an etag is made again on a newer record.
const updateTries = 20

// Update changes an app. Neither switching auto-deploy on nor changing the branch deploys: the
// branch's head becomes the baseline.
func (s *Service) Update(ctx context.Context, req *deployerv1.UpdateAppRequest, actor *deployerv1.DeploymentActor) (*deployerv1.App, error) {
	return s.save(ctx, req, &deployerv1.AutoDeployOff{Actor: actor})
}

// save is Update; off is noted where the request switches auto-deploy off.
func (s *Service) save(ctx context.Context, req *deployerv1.UpdateAppRequest, off *deployerv1.AutoDeployOff) (*deployerv1.App, error) {
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetAppId()}
	req = proto.CloneOf(req)
	asMeant(req.GetApp())
	for range updateTries {
		err := s.update(ctx, k, req, off)
		switch {
		case err == nil:
			return s.Get(ctx, k)
		case !errors.Is(err, kv.ErrConflict):
			return nil, err
		}
	}
	return nil, apierr.New(apierr.ReasonEtagMismatch, "The app keeps being changed by others. Load it again and repeat your change.")
}

func (s *Service) update(ctx context.Context, k lane.Key, req *deployerv1.UpdateAppRequest, off *deployerv1.AutoDeployOff) error {
	old, rev, err := s.load(ctx, k)
	if err != nil {
		return err
	}
	if err := checkEtag(req.GetApp().GetEtag(), rev); err != nil {
		return err
	}
	a := proto.CloneOf(old)
	now := s.now()
	var faults apierr.Faults
	if applyMask(a, req, &faults) {
		if err := s.setVariables(a, req.GetApp().GetVariables(), now, &faults); err != nil {
			return err
		}
	}
	withDefaults(a)
	if err := s.keyBadge(a); err != nil {
		return err
	}
	if proto.Equal(a, old) {
		return faults.Err()
	}
	if err := s.check(ctx, a, &faults); err != nil || req.GetValidateOnly() {
		return err
	}
	a.Version, a.UpdateTime = max(old.GetVersion()+1, now.UnixNano()), timestamppb.New(now)
	switchedOn := a.GetAutoDeploy() && !old.GetAutoDeploy()
	if switchedOn {
		a.AutoDeployTime, a.AutoDeployOff = timestamppb.New(now), nil
	}
	if !a.GetAutoDeploy() && old.GetAutoDeploy() {
		a.AutoDeployOff = proto.CloneOf(off)
		a.AutoDeployOff.Time = timestamppb.New(now)
	}
	// An excluded app can be changed, also switched off, but nothing of it begins to deploy.
	if switchedOn || a.GetAutoDeploy() && a.GetBranch() != old.GetBranch() {
		if err := s.notOutside(ctx, a); err != nil {
			return err
		}
	}
	if err := s.watch(ctx, a, nil); err != nil {
		return err
	}
	baseline := baselines{
		server: a.GetServer() != old.GetServer(),
		branch: switchedOn || a.GetBranch() != old.GetBranch(), same: a.GetBranch() == old.GetBranch(),
		tags: switchedOn || !slices.Equal(a.GetRules().GetTags(), old.GetRules().GetTags()),
	}
	if err := s.updateLane(ctx, k, a, baseline); err != nil {
		return err
	}
	if _, err := s.cfg.Store.Apps.CompareAndSet(ctx, k.String(), a, rev); err != nil {
		if errors.Is(err, kv.ErrConflict) && req.GetApp().GetEtag() != "" {
			return checkEtag("changed", rev)
		}
		return fmt.Errorf("app: save %s: %w", k, err)
	}
	if err := s.unwatch(ctx, a.GetWorkspace(), a.GetRepository(), a.GetId(), a.GetVersion()); err != nil {
		return err
	}
	s.tryHandOver(ctx, a.GetWorkspace(), a.GetRepository())
	return nil
}

// baselines says of what there is now nothing deploys: it was there before.
type baselines struct {
	branch, tags bool
	server       bool // the app is given another server
	same         bool // the branches are those of before
}

// updateLane moves what waits to the app's server and records the baselines: of one branch its head;
// what matches a pattern is noted by the next look, which comes at once.
func (s *Service) updateLane(ctx context.Context, k lane.Key, a *storev1.App, baseline baselines) error {
	var head string
	var known bool
	pattern := rules.IsGlob(a.GetBranch())
	if baseline.branch && !pattern {
		head, known = s.head(ctx, a)
	}
	l, err := s.cfg.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
		moved := lane.ErrSkip
		if baseline.server || l.GetDeparture() == nil { // else an operator may be moving the app away from its server
			moved = lane.Move(l, a.GetServer())
		}
		switch {
		case !baseline.branch:
		case pattern && baseline.same:
			lane.PassBranches(l, apps.Moved(a, l))
		case pattern:
			lane.ForgetBranches(l)
		case known:
			lane.Baseline(l, a.GetRepository(), a.GetBranch(), head, s.now())
		default:
			lane.ForgetHead(l, a.GetRepository(), a.GetBranch(), s.now())
		}
		if baseline.tags {
			lane.ForgetTags(l)
		}
		if baseline.branch || baseline.tags {
			return nil
		}
		return moved
	})
	if err != nil {
		return err
	}
	return s.cfg.Dispatcher.Dispatch(ctx, k, l)
}

func maskOf(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
