package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

const (
	maxFailed = 100 // commits of one streak that are remembered
	logTail   = 200 // lines of a log among which a hook's last ones are looked for

	reasonDiskFull = "DISK_FULL" // of the deployer, what a deployment waits for
)

// deployment reads a deployment that changed; id is app/number.
func (w *Watcher) deployment(ctx context.Context, workspace, id string) error {
	app, text, _ := strings.Cut(id, "/")
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil || !w.wanted(workspace, app, gatewayv1.NotificationTarget_DEPLOYMENT_FAILED, gatewayv1.NotificationTarget_DEPLOYMENT_RECOVERED, gatewayv1.NotificationTarget_DISK_LOW) {
		return nil //nolint:nilerr // not an event of a deployment
	}
	ctx, err = w.as(ctx, workspace)
	if err != nil {
		return err
	}
	resp, err := w.cfg.Deployer.GetDeployment(ctx, &deployerv1.GetDeploymentRequest{Workspace: workspace, App: app, Number: int32(number)})
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	d := resp.GetDeployment()
	switch d.GetState() {
	case deployerv1.Deployment_FAILED:
		return w.failed(ctx, workspace, d)
	case deployerv1.Deployment_COMPLETED:
		if err := w.recovered(ctx, workspace, d); err != nil {
			return err
		}
		return w.disk(ctx, workspace, d)
	case deployerv1.Deployment_PENDING, deployerv1.Deployment_PROCESSING:
		return w.disk(ctx, workspace, d)
	case deployerv1.Deployment_STATE_UNSPECIFIED, deployerv1.Deployment_CANCELLED, deployerv1.Deployment_SUPERSEDED:
	}
	return nil
}

// isGone is whether an answer says that what was asked for is not there any more.
func isGone(err error) bool { return err != nil && errors.Is(apierr.From(err), apierr.NotFound) }

// about is a notification about a deployment.
func about(workspace string, d *deployerv1.Deployment, event gatewayv1.NotificationTarget_Event) *gatewaystorev1.Notification {
	at := d.GetEndTime()
	if at == nil {
		at = d.GetCreateTime()
	}
	return &gatewaystorev1.Notification{
		Id: idOf(workspace, d.GetApp(), strconv.Itoa(int(d.GetNumber())), event.String()), Event: event,
		App: d.GetApp(), Deployment: d.GetNumber(), Branch: d.GetBranch(), Commit: d.GetCommit().GetHash(),
		Path: deploymentPath(workspace, d.GetApp(), d.GetNumber()), Time: at,
	}
}

// failed tells of a deployment that failed, once for each commit until one succeeds.
func (w *Watcher) failed(ctx context.Context, workspace string, d *deployerv1.Deployment) error {
	n := about(workspace, d, gatewayv1.NotificationTarget_DEPLOYMENT_FAILED)
	n.Reason, n.Title = d.GetError().GetReason(), fmt.Sprintf("%s: deployment #%d failed", d.GetApp(), d.GetNumber())
	if hook, how := failedHook(d); hook != "" {
		n.Title += ": hook " + hook + ", " + how
	}
	n.Text = strings.TrimSpace(d.GetError().GetMessage() + " " + what(d))
	key := streakKey(workspace, "app", d.GetApp())
	cur, _, err := w.cfg.Store.streaks.Get(ctx, key)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	if _, told := cur.GetFailed()[n.GetCommit()]; !told && d.GetNumber() > cur.GetRecovered() {
		if n.Lines, err = w.lines(ctx, workspace, d); err != nil {
			return err
		}
	}
	return w.streak(ctx, workspace, key, func(s *gatewaystorev1.NotificationStreak) error {
		if d.GetNumber() <= s.GetRecovered() {
			return kv.ErrSkip // one that succeeded is told already
		}
		_, told := s.GetFailed()[n.GetCommit()]
		if told && d.GetNumber() <= s.GetLastFailed() {
			return kv.ErrSkip
		}
		s.LastFailed = max(s.GetLastFailed(), d.GetNumber())
		if told {
			return nil
		}
		if s.Failed == nil || len(s.GetFailed()) >= maxFailed {
			s.Failed = map[string]int32{}
		}
		s.Failed[n.GetCommit()] = d.GetNumber()
		s.Outbox = append(s.GetOutbox(), n)
		return nil
	})
}

// recovered tells of the first deployment that succeeded after one had failed.
func (w *Watcher) recovered(ctx context.Context, workspace string, d *deployerv1.Deployment) error {
	n := about(workspace, d, gatewayv1.NotificationTarget_DEPLOYMENT_RECOVERED)
	n.Title = fmt.Sprintf("%s: deployment #%d succeeded again", d.GetApp(), d.GetNumber())
	return w.streak(ctx, workspace, streakKey(workspace, "app", d.GetApp()), func(s *gatewaystorev1.NotificationStreak) error {
		if s.GetLastFailed() == 0 || d.GetNumber() < s.GetLastFailed() {
			return kv.ErrSkip
		}
		n.Text = fmt.Sprintf("Deployment #%d had failed. %s", s.GetLastFailed(), what(d))
		s.Failed, s.LastFailed, s.Recovered = nil, 0, d.GetNumber()
		s.Outbox = append(s.GetOutbox(), n)
		return nil
	})
}

// what says which commit a deployment is of.
func what(d *deployerv1.Deployment) string {
	hash := bitbucket.ShortHash(d.GetCommit().GetHash())
	switch {
	case hash == "":
		return ""
	case d.GetTag() != "":
		return fmt.Sprintf("It is tag %s at %s.", d.GetTag(), hash)
	case d.GetBranch() != "":
		return fmt.Sprintf("It is branch %s at %s.", d.GetBranch(), hash)
	}
	return fmt.Sprintf("It is commit %s.", hash)
}

// failedHook is the hook by which a deployment failed, and how; empty when no hook did.
func failedHook(d *deployerv1.Deployment) (name, how string) {
	for _, stage := range d.GetStages() {
		for _, h := range stage.GetHooks() {
			switch {
			case h.GetState() == deployerv1.HookRecord_TIMED_OUT:
				return h.GetName(), "took too long"
			case h.GetState() == deployerv1.HookRecord_FAILED && h.ExitCode != nil:
				return h.GetName(), fmt.Sprintf("exit %d", h.GetExitCode())
			case h.GetState() == deployerv1.HookRecord_FAILED:
				return h.GetName(), "failed"
			}
		}
	}
	return "", ""
}

// lines are the last lines of what failed, as the log has them, in which secrets are masked: those of the
// hook, or of all when no hook failed.
func (w *Watcher) lines(ctx context.Context, workspace string, d *deployerv1.Deployment) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log, err := w.cfg.Deployer.ReadLog(ctx, &deployerv1.ReadLogRequest{Workspace: workspace, App: d.GetApp(), Number: d.GetNumber(), Tail: logTail})
	if err != nil {
		return nil, err
	}
	hook, _ := failedHook(d)
	var lines []string
	for {
		resp, err := log.Recv()
		if errors.Is(err, io.EOF) || isGone(err) || resp.GetEnd() != nil {
			lines = addLines(lines, resp, hook)
			return lines[max(0, len(lines)-maxLines):], nil
		}
		if err != nil {
			return nil, err
		}
		lines = addLines(lines, resp, hook)
	}
}

func addLines(lines []string, resp *deployerv1.ReadLogResponse, hook string) []string {
	for _, r := range resp.GetRecords() {
		if hook == "" || r.GetHook() == hook {
			lines = append(lines, printable(r.GetText()))
		}
	}
	return lines
}

// printable drops what moves a terminal's cursor or colours its text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, escapes.ReplaceAllString(strings.ToValidUTF8(text, "�"), ""))
}

// disk tells that a server has no room for a deployment, once until a deployment on it succeeds.
func (w *Watcher) disk(ctx context.Context, workspace string, d *deployerv1.Deployment) error {
	full := d.GetWaitingFor().GetReason() == reasonDiskFull
	if !full && d.GetState() != deployerv1.Deployment_COMPLETED || d.GetServer() == "" {
		return nil
	}
	notification := func(title, text string) *gatewaystorev1.Notification {
		n := about(workspace, d, gatewayv1.NotificationTarget_DISK_LOW)
		n.App, n.Reason, n.Title, n.Text, n.Time = "", reasonDiskFull, title, text, timestamppb.New(w.cfg.Now())
		return n
	}
	return w.trouble(ctx, workspace, streakKey(workspace, "disk", d.GetServer()), func() (look, error) {
		l := look{
			begins: notification(fmt.Sprintf("Server %s has too little disk", d.GetServer()), fmt.Sprintf("Deployment #%d of %s waits. %s", d.GetNumber(), d.GetApp(), d.GetWaitingFor().GetMessage())),
			ends:   notification(fmt.Sprintf("Server %s has room again", d.GetServer()), fmt.Sprintf("Deployment #%d of %s succeeded.", d.GetNumber(), d.GetApp())),
		}
		if full {
			l.trouble = reasonDiskFull
		}
		return l, nil
	})
}
