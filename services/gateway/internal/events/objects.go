package events

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway/internal/rest"
)

const (
	// ObjectWait is how long an event waits for what it brings along; then it comes without.
	ObjectWait = time.Second
	// maxObject is the largest object that an event brings along, in bytes.
	maxObject = 64 << 10
	// maxReads is how many objects a process reads for events at a time.
	maxReads = 8
	// maxObjects is how many objects a process keeps, or waits for, at a time.
	maxObjects = 256
	// keptFor is for how many of its waits an object that was read is kept, for other readers of the same event.
	keptFor = 2
	// maxResumed is how many of the changes that a client missed bring their object along: the newest.
	maxResumed = 100
)

// Read reads a resource for the identity in the context, as its GET does; nil where there is none.
type Read func(ctx context.Context, workspace, kind, id string) (proto.Message, error)

// Objects reads what events bring along, once for all readers who get the same answer. It is safe for concurrent use.
type Objects struct {
	wait  time.Duration
	read  Read
	slots chan struct{}

	mu     sync.Mutex
	newest map[object]*reading
}

// NewObjects makes Objects that give a reading up after the wait.
func NewObjects(wait time.Duration, read Read) *Objects {
	return &Objects{wait: wait, read: read, slots: make(chan struct{}, maxReads), newest: map[object]*reading{}}
}

// object is a resource as some readers see it: those to whom the services' rules give the same answer.
type object struct {
	workspace, kind, id string
	role                identity.Role
	scope               identity.Scope
	program             bool
	apps                identity.Apps
}

func seenBy(id identity.Identity, kind, of string) object {
	return object{
		workspace: id.Workspace, kind: kind, id: of, role: id.Role, scope: id.Scope, program: id.SubjectKind.IsProgram(),
		apps: id.Apps,
	}
}

// reading is one reading of an object. It is newer than every event up to its place: it began after them.
type reading struct {
	place uint64
	begun bool
	done  chan struct{}
	// Set before done is closed; no body: there is nothing to bring.
	body []byte
	etag string
}

func (r *reading) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// ask has the object read, unless a reading that began after the event at the place is under way or kept. Of one
// object one reading is under way and one waits, which will do for all events until it begins. nil: too much is
// asked for. The identity is in the context.
func (o *Objects) ask(ctx context.Context, kind, id string, place uint64) *reading {
	who, ok := identity.FromContext(ctx)
	if !ok {
		return nil
	}
	of := seenBy(who, kind, id)
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.newest[of]
	if before != nil && (!before.begun || before.place >= place) {
		before.place = max(before.place, place)
		return before
	}
	if before == nil && len(o.newest) >= maxObjects {
		return nil
	}
	r := &reading{place: place, done: make(chan struct{})}
	o.newest[of] = r
	// It is not the first reader's alone: it goes on where that one leaves.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.wait)
	go func() {
		defer cancel()
		o.run(ctx, of, r, before)
	}()
	return r
}

// run reads after the reading before, and keeps the answer for a while.
func (o *Objects) run(ctx context.Context, of object, r, before *reading) {
	defer close(r.done)
	if !o.turn(ctx, before) {
		o.begin(r)
		o.forget(of, r)
		return
	}
	defer func() { <-o.slots }()
	o.begin(r)
	if m, err := o.read(ctx, of.workspace, of.kind, of.id); err == nil && m != nil {
		if body, etag, err := rest.Answer(m); err == nil && len(body) <= maxObject {
			r.body, r.etag = body, etag
		}
	} // else the reader looks for itself, and is told what is wrong
	time.AfterFunc(keptFor*o.wait, func() { o.forget(of, r) })
}

// turn waits until it may be read; false when that takes too long.
func (o *Objects) turn(ctx context.Context, before *reading) bool {
	if before != nil {
		select {
		case <-before.done:
		case <-ctx.Done():
			return false
		}
	}
	select {
	case o.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (o *Objects) begin(r *reading) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.begun = true
}

func (o *Objects) forget(of object, r *reading) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.newest[of] == r {
		delete(o.newest, of)
	}
}
