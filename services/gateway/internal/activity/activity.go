// Package activity keeps who did what: numbered records per workspace.
//
// Recording never delays or fails the call that is recorded: [Recorder.Record] hands the entry to
// a queue; what cannot be stored after some tries is logged and counted. Records disappear after a
// year, or what an operator says.
//
// It depends on pkg/kv and pkg/identity.
package activity

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

const (
	recordsBucket  = "gateway_activity"
	countersBucket = "gateway_activity_counters"
	// DefaultRetention is how long the activity list reaches back unless an operator says otherwise.
	DefaultRetention = 365 * 24 * time.Hour
	// maxExamined bounds how many numbers one page reads: numbers whose record was never
	// written, or has expired, are gaps.
	maxExamined = 500
)

// Buckets are all buckets of Store.
func Buckets() []string { return []string{recordsBucket, countersBucket} }

// Store keeps the records. Open it before use; then it is safe for concurrent use.
type Store struct {
	js        jetstream.JetStream
	retention time.Duration
	records   *kv.Bucket[gatewaystorev1.Activity, *gatewaystorev1.Activity]
	counters  *kv.Bucket[gatewaystorev1.ActivityCounter, *gatewaystorev1.ActivityCounter]
}

// NewStore makes a store that is not open yet. Records disappear after the retention; 0: DefaultRetention.
func NewStore(js jetstream.JetStream, retention time.Duration) *Store {
	return &Store{js: js, retention: cmp.Or(retention, DefaultRetention)}
}

// Open creates the buckets or brings their settings up to date. It can be repeated.
func (s *Store) Open(ctx context.Context) (err error) {
	s.records, err = kv.Open[gatewaystorev1.Activity](ctx, s.js, kv.Config{Name: recordsBucket, Version: 1, TTL: true})
	if err != nil {
		return err
	}
	s.counters, err = kv.Open[gatewaystorev1.ActivityCounter](ctx, s.js, kv.Config{Name: countersBucket, Version: 1})
	return err
}

// Entry is one thing that somebody did.
type Entry struct {
	Workspace string
	Time      time.Time
	Actor     identity.Identity
	Action    string // such as app.create
	Target    string // such as app "web"
	Resource  string // where that is, below the workspace: apps/web; empty: nowhere
	Message   string // a sentence for people when it succeeded; the error's when it did not
	Err       error
	RequestID string
	Address   string // of the client
	Changes   []Change
}

// Change is one field that was changed; before and after are JSON, empty for a field that is not set.
type Change struct{ Field, Before, After string }

func (e Entry) record() *gatewaystorev1.Activity {
	a := &gatewaystorev1.Activity{
		Time: timestamppb.New(e.Time), ActorLabel: e.Actor.Label, ActorSubject: e.Actor.Subject,
		ActorKind: string(e.Actor.SubjectKind), Action: e.Action, Target: e.Target,
		Succeeded: e.Err == nil, Message: e.Message, RequestId: e.RequestID,
		Address: e.Address, Resource: e.Resource,
	}
	for _, c := range e.Changes {
		a.Changes = append(a.Changes, &gatewaystorev1.ActivityChange{Field: c.Field, Before: c.Before, After: c.After})
	}
	if e.Err != nil {
		problem := apierr.From(e.Err)
		a.Reason, a.Message = string(problem.Reason()), problem.Message()
	}
	return a
}

// number takes the workspace's next n numbers and returns the first.
func (s *Store) number(ctx context.Context, workspace string, n int) (first int32, err error) {
	c, _, err := s.counters.Update(ctx, workspace, func(c *gatewaystorev1.ActivityCounter) (*gatewaystorev1.ActivityCounter, error) {
		if c == nil {
			c = &gatewaystorev1.ActivityCounter{}
		}
		c.Last += int32(n)
		return c, nil
	})
	return c.GetLast() - int32(n) + 1, err
}

// put stores a record under its number. It can be repeated: what is there under the number is the record.
func (s *Store) put(ctx context.Context, workspace string, a *gatewaystorev1.Activity) error {
	_, err := s.records.Create(ctx, recordKey(workspace, a.GetNumber()), a, kv.TTL(s.retention))
	if errors.Is(err, kv.ErrExists) {
		return nil
	}
	return err
}

func recordKey(workspace string, number int32) string {
	return kv.EncodeKey(workspace, strconv.Itoa(int(number)))
}

// List returns at most limit records that match, with numbers below before (0: all), newest first, and
// the number to go on below; 0 when there are no more. It reads a bounded number of records: a
// filtered page may be short, or empty, and yet not the last.
func (s *Store) List(ctx context.Context, workspace string, f Filter, before int32, limit int) (list []*gatewaystorev1.Activity, next int32, err error) {
	c, _, err := s.counters.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, kv.ToAPI(err)
	}
	number := c.GetLast()
	if before > 0 {
		number = min(number, before-1)
	}
	for examined := 0; number > 0; number-- {
		if len(list) == limit || examined == maxExamined {
			return list, number + 1, nil
		}
		examined++
		a, _, err := s.records.Get(ctx, recordKey(workspace, number))
		switch {
		case errors.Is(err, kv.ErrNotFound):
		case err != nil:
			return nil, 0, kv.ToAPI(err)
		case f.isOver(a):
			return list, 0, nil
		case f.matches(a):
			list = append(list, a)
		}
	}
	return list, 0, nil
}
