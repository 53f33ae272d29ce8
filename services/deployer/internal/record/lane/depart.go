package lane

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// A server that died takes its releases along, and whoever ran a deployment there says nothing any more. An
// operator moves its apps: one decision of the lane ends or moves what it has there, lets nobody of that server
// write down anything later, and has what was live deployed again elsewhere.

// Departure is an operator's word that a server has died.
type Departure struct {
	From, To string
	// Branch is the app's: what went live before its branch was kept is deployed from there.
	Branch string
	Now    time.Time
}

// Departed says what a departure did.
type Departed struct {
	Again     int32 // the deployment that makes what was live anew; 0 for none
	TakenBack int32 // the deployment that ran there; 0 for none
	Waiting   int32 // the deployment that waited for the server, and waits for the other one now; 0 for none
	Undecided int   // pushes that the other server's workers decide about now
}

// Concerns tells whether anything of the lane is on a server, or waits for it.
func Concerns(l *storev1.Lane, server string) bool {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return false
	}
	for _, job := range []*storev1.Job{l.GetRunning().GetJob(), l.GetAhead(), l.GetWaiting()} {
		if job != nil && job.GetServer() == server {
			return true
		}
	}
	return l.GetLive() != nil && !l.GetLive().GetLost() && l.GetLive().GetServer() == server || undecidedOn(l, server)
}

func undecidedOn(l *storev1.Lane, server string) bool {
	return slices.ContainsFunc(l.GetCandidates(), func(c *storev1.Candidate) bool { return c.GetServer() == server })
}

// Depart moves all that an app has on a server to another one: what waits waits there, what ran is taken back and
// waits there too, what was live is deployed there again before either. No worker of the old server can write
// down anything that it began, also where it comes back. ErrSkip where that was done before, ErrBacklog where
// the outbox is full.
func Depart(l *storev1.Lane, d Departure) (out Departed, err error) {
	if l.GetRetired() || l.GetGeneration() == 0 {
		return out, ErrSkip
	}
	old := l.GetDeparture()
	if old.GetServer() == d.From && old.GetTo() == d.To && !Concerns(l, d.From) {
		return out, ErrSkip
	}
	if len(l.GetOutbox()) >= maxOutbox {
		return out, ErrBacklog
	}
	l.Departure = &storev1.Departure{Server: d.From, To: d.To, Time: timestamppb.New(d.Now)}
	if old.GetServer() == d.From {
		l.Departure.Number = old.GetNumber()
	}
	for _, c := range l.GetCandidates() {
		if c.GetServer() == d.From {
			c.Server = d.To
			out.Undecided++
		}
	}
	out.TakenBack = takeBack(l, d)
	for _, job := range []*storev1.Job{l.GetAhead(), l.GetWaiting()} {
		if job.GetServer() == d.From && job != nil {
			readdress(l, job, d, fmt.Sprintf("It waited for server %s, which died: an operator moved the app to server %s.", d.From, d.To))
			if job.GetNumber() != out.TakenBack {
				out.Waiting = job.GetNumber()
			}
		}
	}
	out.Again = restore(l, d)
	return out, nil
}

// takeBack ends the attempt that runs on the server that died.
func takeBack(l *storev1.Lane, d Departure) int32 {
	r := l.GetRunning()
	if r == nil || r.GetJob().GetServer() != d.From {
		return 0
	}
	l.Epoch++
	number := r.GetJob().GetNumber()
	readdress(l, r.GetJob(), d, fmt.Sprintf("It ran on server %s, which died: an operator moved the app to server %s, where it begins anew.", d.From, d.To))
	goBack(l, r, &storev1.Returned{}, Result{Now: d.Now})
	return number
}

// readdress has a job run on the other server. The release that a rollback takes died with the old one: its
// commit is deployed.
func readdress(l *storev1.Lane, job *storev1.Job, d Departure, note string) {
	job.Server = d.To
	if job.GetDirectory() != "" {
		job.Directory, job.Pinned = "", true
	}
	push(l, job.GetNumber(), func(x *storev1.RecordChange) {
		x.Change = &storev1.RecordChange_Moved{Moved: &storev1.Moved{Server: d.To, Notes: []string{note}}}
	})
}

// restore has what was live on the server that died deployed again, before all that waits.
func restore(l *storev1.Lane, d Departure) int32 {
	live := l.GetLive()
	if live == nil || live.GetLost() || live.GetServer() != d.From {
		return 0
	}
	l.Epoch++ // a worker there that has not heard of it has lost its fence
	live.Lost = true
	l.Kept = slices.DeleteFunc(l.GetKept(), func(k *storev1.Kept) bool {
		return k.GetServer() == d.From && k.GetNumber() != live.GetNumber() // that one tells what is to be served
	})
	a := liveAgain(live, d)
	l.LastNumber++
	l.Ahead, l.Hold = a.job(l.GetLastNumber()), nil
	l.Departure.Number = l.GetLastNumber()
	push(l, l.GetLastNumber(), func(c *storev1.RecordChange) {
		c.Change = &storev1.RecordChange_Created{Created: newRecord(l, a, l.GetLastNumber())}
	})
	return l.GetLastNumber()
}

// liveAgain is the wish for the commit that was live, whatever its branch's head is.
func liveAgain(live *storev1.Live, d Departure) Request {
	ref := Ref(live.GetRef())
	if ref == "" {
		ref = Branch(d.Branch)
	}
	return Request{
		ReceiveTime: d.Now, Now: d.Now, Trigger: deployerv1.Deployment_MOVED, Branch: ref.Branch(), Tag: ref.Tag(),
		Commit: &deployerv1.DeploymentCommit{Hash: live.GetHash()}, Pinned: true, SourceNumber: live.GetNumber(), Server: d.To,
		Actor: &deployerv1.DeploymentActor{Kind: deployerv1.DeploymentActor_SYSTEM, Label: "Devpilot"},
		Notes: []string{fmt.Sprintf("Deployment #%d was live on server %s, which died: an operator moved the app to server %s, and the same commit is deployed there.", live.GetNumber(), d.From, d.To)},
	}
}

// addressee is the server that a wish for a deployment goes to: who made the wish may not have heard that the
// app was moved away from a server that died.
func addressee(l *storev1.Lane, server string) string {
	if d := l.GetDeparture(); d != nil && d.GetServer() == server {
		return d.GetTo()
	}
	return server
}

// Upcoming is the job that runs next; nil when none waits.
func Upcoming(l *storev1.Lane) *storev1.Job {
	if l.GetAhead() != nil {
		return l.GetAhead()
	}
	return l.GetWaiting()
}

// Origin is the deployment that brought what is live: where its server died since, and the same commit was
// deployed again, not that one. 0 when nothing is live.
func Origin(l *storev1.Lane) int32 {
	if n := l.GetLive().GetOrigin(); n != 0 {
		return n
	}
	return l.GetLive().GetNumber()
}
