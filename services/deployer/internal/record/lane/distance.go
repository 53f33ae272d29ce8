package lane

import storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"

// DistanceTo is how far a head is from what is live; nil while it was not counted.
func DistanceTo(l *storev1.Lane, head string) *storev1.Distance {
	d := l.GetDistance()
	if d == nil || head == "" || d.GetHead() != head || d.GetLive() != l.GetLive().GetHash() {
		return nil
	}
	return d
}

// NoteDistance keeps how far the watched branch is from what is live. ErrSkip where something else is live
// by now: nobody would be shown it.
func NoteDistance(l *storev1.Lane, d *storev1.Distance) error {
	if l.GetLive().GetHash() != d.GetLive() || DistanceTo(l, d.GetHead()) != nil {
		return ErrSkip
	}
	l.Distance = d
	return nil
}
