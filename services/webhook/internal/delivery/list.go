package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

// Config is what a Log needs.
type Config struct {
	JS     jetstream.JetStream
	Store  *natsstore.Store
	Codec  *inbox.Codec
	Tokens *pagetoken.Codec
	// Missed is told of each push that was found although a delivery should have told of it.
	Missed func(ctx context.Context, workspace, webhook string, at time.Time) error
	// Doubted is told of each push that was found of which it is not known whether a delivery told of it.
	Doubted func(ctx context.Context, workspace, webhook string) error
	Now     func() time.Time
}

// Log is the log of deliveries. It is safe for concurrent use.
type Log struct{ cfg Config }

// New makes a log.
func New(cfg Config) *Log { return &Log{cfg: cfg} }

const (
	examined = 400 // deliveries that one page with a filter reads
	parallel = 8   // deliveries that are read at a time
)

// Query asks for a page of a webhook's deliveries.
type Query struct {
	Workspace, Webhook string
	Refused            bool // refused requests instead
	Filter             Filter
	PageSize           int32
	PageToken          string
}

// List returns a page, newest first, and the token of the next one, "" after the last.
func (l *Log) List(ctx context.Context, q Query) (page []*webhookv1.Delivery, next string, err error) {
	scope := pagetoken.Scope(append([]string{"ListDeliveries", q.Workspace, q.Webhook, strconv.FormatBool(q.Refused)}, q.Filter.scope()...)...)
	cursor, err := l.cfg.Tokens.Decode(scope, q.PageToken)
	if err != nil {
		return nil, "", err
	}
	size, err := pagetoken.Size(q.PageSize, pagetoken.MaxPage)
	if err != nil {
		return nil, "", err
	}
	read, newest, oldest, err := l.source(ctx, q)
	if err != nil {
		return nil, "", err
	}
	from := newest
	if len(cursor) == 4 {
		from = min(newest, int32(binary.BigEndian.Uint32(cursor)))
	}
	page, last, err := l.collect(ctx, q, size, from, oldest, read)
	if err != nil {
		return nil, "", err
	}
	if last > oldest {
		next = l.cfg.Tokens.Encode(scope, binary.BigEndian.AppendUint32(nil, uint32(last-1)))
	}
	return page, next, nil
}

// reader gets one delivery, nil where there is none of that number.
type reader func(ctx context.Context, number int32) (*webhookv1.Delivery, error)

// source says where the deliveries are and from which number to which.
func (l *Log) source(ctx context.Context, q Query) (read reader, newest, oldest int32, err error) {
	if q.Refused {
		ring, err := l.cfg.Store.Refused(ctx, q.Workspace, q.Webhook)
		if err != nil {
			return nil, 0, 0, err
		}
		n := int32(len(ring.GetRequests()))
		first := ring.GetLastNumber() - n + 1
		return func(_ context.Context, number int32) (*webhookv1.Delivery, error) {
			return ring.GetRequests()[number-first], nil
		}, ring.GetLastNumber(), first, nil
	}
	ledger, err := l.cfg.Store.Ledger(ctx, q.Workspace, q.Webhook)
	if err != nil {
		return nil, 0, 0, err
	}
	newest = ledger.GetLastNumber()
	records := l.cfg.Store.Reader(q.Workspace, q.Webhook)
	return func(ctx context.Context, number int32) (*webhookv1.Delivery, error) {
		rec, err := records.Delivery(ctx, number)
		if errors.Is(err, kv.ErrNotFound) {
			return nil, nil
		}
		return rec.GetDelivery(), err
	}, newest, max(newest-natsstore.KeptDeliveries+1, 1), nil
}

// collect reads from number from downwards until the page is full, enough has been examined, or the
// oldest is reached. last is the last number examined.
func (l *Log) collect(ctx context.Context, q Query, size int, from, oldest int32, read reader) (page []*webhookv1.Delivery, last int32, err error) {
	last = from + 1
	for seen := 0; len(page) < size && seen < examined && last > oldest; {
		n := min(int32(size-len(page)), last-oldest, int32(examined-seen))
		if q.Filter.some() {
			n = min(max(n, 2*parallel), last-oldest, int32(examined-seen))
		}
		found, err := readMany(ctx, last-1, n, read)
		if err != nil {
			return nil, 0, err
		}
		for _, d := range found {
			last--
			seen++
			if d != nil && q.Filter.older(d) {
				return page, oldest, nil // and so are all before it
			}
			if d != nil && q.Filter.match(d) {
				if page = append(page, d); len(page) == size {
					break
				}
			}
		}
	}
	return page, last, nil
}

func readMany(ctx context.Context, from, n int32, read reader) ([]*webhookv1.Delivery, error) {
	found := make([]*webhookv1.Delivery, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() (err error) {
			found[i], err = read(ctx, from-i)
			return err
		})
	}
	return found, g.Wait()
}

// Get returns one delivery.
func (l *Log) Get(ctx context.Context, workspace, webhook string, number int32) (*webhookv1.Delivery, error) {
	rec, err := l.cfg.Store.Delivery(ctx, workspace, webhook, number)
	if err != nil {
		return nil, notFound(err)
	}
	return rec.GetDelivery(), nil
}

func notFound(err error) error {
	if errors.Is(err, kv.ErrNotFound) {
		return apierr.New(apierr.ReasonDeliveryNotFound, "The webhook has no such delivery, or it is no longer kept: the last 1,000 are.", apierr.WithCause(err))
	}
	return err
}
