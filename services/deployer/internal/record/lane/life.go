package lane

import (
	"slices"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Begin makes the lane ready for a new app and returns its generation. The lane of a deleted app
// goes on: numbers start again, epochs never do. A lane that was begun and whose app was never
// made is handed out again.
func Begin(l *storev1.Lane) int64 {
	if l.GetGeneration() != 0 && !l.GetRetired() {
		return l.GetGeneration()
	}
	l.Generation++
	l.Retired = false
	l.Epoch++
	l.FirstEpoch = l.Epoch
	l.LastNumber = 0
	ForgetBranches(l)
	ForgetTags(l)
	return l.GetGeneration()
}

// Retire ends the lane's app. What ran has lost its fence; records, log lines up to logSequence and
// directories are left to be removed. ErrSkip when another app has the name by now.
func Retire(l *storev1.Lane, generation int64, logSequence uint64) error {
	if l.GetGeneration() != generation || l.GetRetired() {
		return ErrSkip
	}
	l.Epoch++
	var short []*storev1.CutShort
	for _, c := range l.GetOutbox() { // what is not written down has not been told either
		if e := c.GetEnded(); len(e.GetAskers()) > 0 {
			short = append(short, &storev1.CutShort{Number: c.GetNumber(), Askers: e.GetAskers()})
		}
		if d := c.GetDecided(); d != nil {
			short = append(short, &storev1.CutShort{Number: d.GetNumber(), Askers: d.GetAskers()})
		}
	}
	for _, c := range l.GetCandidates() {
		if len(c.GetAskers()) > 0 {
			short = append(short, &storev1.CutShort{Askers: c.GetAskers()})
		}
	}
	for _, job := range []*storev1.Job{l.GetRunning().GetJob(), l.GetWaiting()} {
		if len(job.GetAskers()) > 0 {
			short = append(short, &storev1.CutShort{Number: job.GetNumber(), Askers: job.GetAskers()})
		}
	}
	l.Remains = append(l.Remains, &storev1.Remains{
		CutShort: short, Generation: generation, LastNumber: l.GetLastNumber(), LogSequence: logSequence,
		Records: true, Servers: l.GetServers(), Epoch: l.GetEpoch(),
	})
	l.Retired = true
	l.Running, l.Ahead, l.Waiting, l.Hold, l.Live, l.Cancel, l.Owed = nil, nil, nil, nil, nil, nil, nil
	l.Departure = nil
	l.Recent, l.ForgottenTime, l.Heads, l.Kept, l.Outbox, l.Servers = nil, nil, nil, nil, nil, nil
	l.History, l.TurnedAway, l.Candidates, l.Sighted = nil, nil, nil, nil
	return nil
}

// Removed notes what of a deleted app is gone: its records and log lines (records), or its
// directory on a server (server not empty).
func Removed(l *storev1.Lane, generation int64, records bool, server string) {
	for _, r := range l.GetRemains() {
		if r.GetGeneration() != generation {
			continue
		}
		if records {
			r.Records, r.CutShort = false, nil
		}
		if server != "" {
			r.Servers = slices.DeleteFunc(r.Servers, func(s string) bool { return s == server })
		}
	}
	l.Remains = slices.DeleteFunc(l.Remains, func(r *storev1.Remains) bool { return !r.GetRecords() && len(r.GetServers()) == 0 })
}

// HasWork tells whether somebody still has to do something about the lane; such a lane is armed.
func HasWork(l *storev1.Lane) bool {
	return l.GetRunning() != nil || Upcoming(l) != nil || len(l.GetOutbox()) > 0 || len(l.GetRemains()) > 0 || Undecided(l)
}

// Decider is the server whose workers decide about the lane's candidates; empty when there are none.
func Decider(l *storev1.Lane) string {
	if !Undecided(l) {
		return ""
	}
	return l.GetCandidates()[0].GetServer()
}

// WakeTargets are the servers whose workers have something to do for the lane now.
func WakeTargets(l *storev1.Lane) []string {
	var out []string
	switch r, w := l.GetRunning(), Upcoming(l); {
	case r != nil && r.GetWake() == 0:
		out = append(out, r.GetJob().GetServer())
	case r == nil && w != nil:
		out = append(out, w.GetServer())
	}
	for _, rem := range l.GetRemains() {
		for _, s := range rem.GetServers() {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}
