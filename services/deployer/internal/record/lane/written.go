package lane

import (
	"sync"

	"google.golang.org/protobuf/proto"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// While a deployment waits or runs, its lane is written again soon: what the outbox held and the records
// have then leaves the lane with that write, instead of costing one of its own. Until then views read it
// from the outbox, and whoever flushes the lane again finds the records as they should be.

const (
	// mostLeft is how many changes stay in an outbox although they are written.
	mostLeft = 8
	// mostWritten is how many lanes are remembered with changes that are written.
	mostWritten = 10_000
)

// written remembers, by lane, which changes of the outbox this process has written. What it forgets is
// written once more, which changes nothing.
type written struct {
	mu sync.Mutex
	by map[Key]writtenUpTo
}

type writtenUpTo struct {
	generation int64
	last       *storev1.RecordChange
	revision   uint64 // of the records
}

// mayStay tells whether the written changes of a lane may leave it with its next decision: one is to
// come, and nobody is told of them, so that nobody is told twice.
func mayStay(l *storev1.Lane) bool {
	if l.GetRunning() == nil && Upcoming(l) == nil || len(l.GetOutbox()) > mostLeft {
		return false
	}
	for _, c := range l.GetOutbox() {
		if c.GetEnded() != nil || c.GetDecided() != nil {
			return false
		}
	}
	return true
}

// note remembers that all of the lane's outbox is written; false when there is no room for it.
func (w *written) note(key Key, l *storev1.Lane, revision uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[Key]writtenUpTo{}
	}
	if _, known := w.by[key]; !known && len(w.by) >= mostWritten {
		return false
	}
	w.by[key] = writtenUpTo{l.GetGeneration(), proto.CloneOf(l.GetOutbox()[len(l.GetOutbox())-1]), revision}
	return true
}

// find returns how many of the outbox's first changes are known to be written, and a revision that has
// them.
func (w *written) find(key Key, l *storev1.Lane) (n int, revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, known := w.by[key]
	if !known || at.generation != l.GetGeneration() {
		return 0, 0
	}
	for i, c := range l.GetOutbox() {
		if c.GetSeq() == at.last.GetSeq() && proto.Equal(c, at.last) {
			return i + 1, at.revision
		}
	}
	return 0, 0
}

// drop takes what is written out of a lane that is about to be stored.
func (w *written) drop(key Key, l *storev1.Lane) {
	if n, revision := w.find(key, l); n > 0 {
		l.Outbox, l.RecordsRevision = l.GetOutbox()[n:], max(l.GetRecordsRevision(), revision)
	}
}

// forget is called when a lane was stored without what is written.
func (w *written) forget(key Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.by, key)
}
