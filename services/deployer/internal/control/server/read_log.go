package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// ReadLog streams a deployment's log and ends with its state, so that a cut differs from an end.
func (s *Server) ReadLog(req *deployerv1.ReadLogRequest, out grpc.ServerStreamingServer[deployerv1.ReadLogResponse]) error {
	u, err := s.up()
	if err != nil {
		return err
	}
	if req.GetAfter() < 0 || req.GetTail() < 0 {
		return apierr.InvalidArgument("after", "after and tail must not be negative")
	}
	k := keyOf(req)
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	d, err := u.Apps.Deployment(ctx, k, req.GetNumber())
	if err != nil {
		return fail(err)
	}
	generation, err := u.Apps.Generation(ctx, k)
	if err != nil {
		return fail(err)
	}
	read := deploylog.Request{
		Workspace: k.Workspace, App: k.App, Number: req.GetNumber(), Generation: generation, After: req.GetAfter(), Tail: req.GetTail(), Every: s.beat,
	}
	if req.GetFollow() && !lane.Terminal(d.GetState()) {
		read.Ended = s.untilEnd(ctx, u, k, req.GetNumber())
	}
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	err = u.Logs.Read(ctx, read, func(records []*deployerv1.LogRecord) error {
		return out.Send(&deployerv1.ReadLogResponse{Records: records})
	})
	if err != nil {
		if out.Context().Err() == nil && errors.Is(err, context.Canceled) {
			return apierr.New(apierr.ReasonServiceUnavailable, "The deployer is being restarted. Go on after the last line you have.")
		}
		return fail(err)
	}
	if d, err = u.Apps.Deployment(ctx, k, req.GetNumber()); err != nil {
		return fail(err)
	}
	return out.Send(&deployerv1.ReadLogResponse{End: &deployerv1.LogEnd{State: d.GetState()}})
}

var errEnded = errors.New("server: the deployment has ended")

// untilEnd returns a channel that is closed when the deployment has ended, or is gone.
func (s *Server) untilEnd(ctx context.Context, u *Uses, k lane.Key, number int32) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		err := u.Deployments.Watch(ctx, k.Record(number), func(_ string, d *storev1.Deployment, _ uint64) error {
			if d == nil || lane.Terminal(d.GetDeployment().GetState()) {
				return errEnded
			}
			return nil
		})
		if errors.Is(err, errEnded) {
			close(ended)
		}
	}()
	return ended
}
