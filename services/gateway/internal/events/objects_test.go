package events

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/identity"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// slow answers after a time that the test sets, with how often it was asked.
type slow struct {
	mu    sync.Mutex
	takes time.Duration
	asked int
	most  int
	now   int
}

func (s *slow) read(ctx context.Context, _, _, id string) (proto.Message, error) {
	s.mu.Lock()
	s.asked, s.now = s.asked+1, s.now+1
	s.most = max(s.most, s.now)
	n, takes := s.asked, s.takes
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now--
	}()
	select {
	case <-time.After(takes):
		return &deployerv1.Deployment{App: id, Number: int32(n)}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func reader(apps ...string) context.Context {
	return identity.WithIdentity(context.Background(), identity.Identity{
		Subject: "jane", SubjectKind: identity.SubjectSession, Workspace: "default", Role: identity.RoleMember, Apps: identity.LimitedTo(apps...),
	})
}

// What began before an event may be from before it.
func TestObjects_aReadingThatBeganBeforeAnEventIsNotUsedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{takes: 10 * time.Millisecond}
		o := NewObjects(time.Second, s.read)
		first := o.ask(reader(), "deployment", "web/1", 5)
		if o.ask(reader(), "deployment", "web/1", 5) != first {
			t.Error("two readers of an event, two readings")
		}
		synctest.Wait() // it has begun
		second := o.ask(reader(), "deployment", "web/1", 6)
		if second == first {
			t.Error("event 6 is answered by what began after event 5")
		}
		if o.ask(reader(), "deployment", "web/1", 9) != second || o.ask(reader(), "deployment", "web/1", 4) != second {
			t.Error("what has not begun does not do for the newer event, or for the older one")
		}
		<-second.done
		if o.ask(reader(), "deployment", "web/1", 9) != second {
			t.Error("what waited for event 9 is not kept for it")
		}
		if s.asked != 2 || s.most != 1 {
			t.Errorf("%d calls, %d at a time", s.asked, s.most)
		}
		if string(first.body) == string(second.body) || !strings.Contains(string(second.body), `"number":2`) {
			t.Errorf("%s, %s", first.body, second.body)
		}
		other := o.ask(reader("web"), "deployment", "web/1", 9)
		if other == second {
			t.Error("who is limited to apps is given what others are")
		}
		<-other.done
		<-time.After(keptFor*time.Second + time.Millisecond)
		synctest.Wait()
		if len(o.newest) != 0 {
			t.Errorf("%d objects are kept for ever", len(o.newest))
		}
	})
}

func TestObjects_areBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{takes: time.Hour}
		o := NewObjects(time.Second, s.read)
		var all []*reading
		for i := range maxObjects {
			all = append(all, o.ask(reader(), "app", fmt.Sprint("a", i), 1))
		}
		if o.ask(reader(), "app", "one-more", 1) != nil {
			t.Error("more is waited for than there may be")
		}
		start := time.Now()
		for _, r := range all {
			if <-r.done; r.body != nil {
				t.Error("a body of what was not answered")
			}
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("given up after %s", took)
		}
		if s.most > maxReads {
			t.Errorf("%d calls at a time", s.most)
		}
		<-time.After(keptFor*time.Second + time.Millisecond)
		synctest.Wait()
		if len(o.newest) != 0 {
			t.Errorf("%d objects are kept for ever", len(o.newest))
		}
	})
}

func queueOf(s *slow) *queue {
	return &queue{
		objects: NewObjects(time.Second, s.read), want: included{object: true},
		identify: func() (context.Context, bool) { return reader(), true },
	}
}

func deployment(place uint64, id string) Change {
	return Change{Sequence: place, workspace: "default", Kind: "deployment", ID: id}
}

// An object that changes all the time, with a deployer that hangs, is told of all the same.
func TestQueue_isNeverLaterThanTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queueOf(&slow{takes: time.Hour})
		asked := map[uint64]time.Time{}
		for place := uint64(1); place < 100; place++ {
			id := fmt.Sprint("web/", place%3)
			asked[place] = time.Now()
			q.change(deployment(place, id))
			<-time.After(100 * time.Millisecond)
			q.due()
			for _, e := range q.entries {
				if waited := time.Since(asked[e.change.Sequence]); waited > time.Second {
					t.Fatalf("event %d waits for %s", e.change.Sequence, waited)
				}
			}
			if len(q.entries) > 3 {
				t.Fatalf("%d events of three objects wait", len(q.entries))
			}
			if _, until := q.next(); !until.IsZero() && time.Until(until) > time.Second {
				t.Fatalf("it waits until %s", until)
			}
		}
		<-time.After(2 * time.Second) // what is still asked is given up
	})
}

func TestQueue_keepsTheOrderAndTellsTheNewestOfAnObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queueOf(&slow{takes: 300 * time.Millisecond})
		q.change(deployment(1, "web/1"))
		q.change(deployment(2, "web/2"))
		q.change(Change{Sequence: 3, workspace: "default", Kind: "members", ID: "default"})
		q.change(deployment(4, "web/1"))
		q.other([]byte("id: 5\nevent: ready\ndata: {}\n\n"))
		if data := q.due(); len(data) != 0 {
			t.Fatalf("sent before its object is there: %s", data)
		}
		first, _ := q.next()
		<-first
		data := string(q.due())
		for len(q.entries) > 0 {
			first, _ = q.next()
			<-first
			data += string(q.due())
		}
		var ids []string
		for line := range strings.Lines(data) {
			if id, ok := strings.CutPrefix(line, "id: "); ok {
				ids = append(ids, strings.TrimSpace(id))
			}
		}
		if got := strings.Join(ids, " "); got != "2 3 4 5" || strings.Count(data, `"object":`) != 2 {
			t.Errorf("told %s:\n%s", got, data)
		}
	})
}

// Who may not read any more is brought nothing.
func TestQueue_bringsNothingWithoutAnIdentity(t *testing.T) {
	s := &slow{}
	q := queueOf(s)
	q.identify = func() (context.Context, bool) { return nil, false }
	q.change(deployment(1, "web/1"))
	if data := string(q.due()); !strings.Contains(data, `"web/1"`) || strings.Contains(data, `"object"`) || s.asked != 0 {
		t.Errorf("%s after %d calls", data, s.asked)
	}
}

func TestObjects_aRefusalBringsNothing(t *testing.T) {
	o := NewObjects(time.Minute, func(context.Context, string, string, string) (proto.Message, error) {
		return nil, errors.New("refused")
	})
	r := o.ask(reader(), "app", "web", 1)
	if <-r.done; r.body != nil || r.etag != "" {
		t.Errorf("%s", r.body)
	}
}
