package natsstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// Deliveries are stored in pages, PageDeliveries with neighbouring numbers in one record, so that
// many deliveries cost one write. One that is too large for its page has a record of its own, as all
// had in earlier versions: what no page has is looked for there.
const (
	// maxPaged is how large a delivery in a page may be when it is stored; maxPage how large a page
	// may become by what is added later.
	maxPaged = 4 << 10
	maxPage  = 256 << 10
	// parallel is how many pages are written at once.
	parallel = 8
)

func deliveryKey(workspace, webhook string, number int32) string {
	return kv.EncodeKey(workspace, webhook, strconv.Itoa(int(number%KeptDeliveries)))
}

func pageKey(workspace, webhook string, first int32) string {
	return kv.EncodeKey(workspace, webhook, strconv.Itoa(int((first-1)/PageDeliveries%keptPages)))
}

// firstOf is the first number of a delivery's page.
func firstOf(number int32) int32 { return (number-1)/PageDeliveries*PageDeliveries + 1 }

// find is a delivery's place in a page, and whether it is there.
func find(p *storev1.DeliveryPage, number int32) (int, bool) {
	return slices.BinarySearchFunc(p.GetDeliveries(), number, func(d *storev1.DeliveryRecord, n int32) int {
		return cmp.Compare(d.GetDelivery().GetNumber(), n)
	})
}

// PutDeliveries stores deliveries of one webhook under their numbers, in the place of older ones. A
// delivery that is there already stays as it is, with what was added to it; so does a newer one in
// the same place.
func (s *Store) PutDeliveries(ctx context.Context, workspace, webhook string, recs []*storev1.DeliveryRecord) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	by := map[int32][]*storev1.DeliveryRecord{}
	for _, rec := range recs {
		first := firstOf(rec.GetDelivery().GetNumber())
		by[first] = append(by[first], rec)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for first, recs := range by {
		g.Go(func() error { return s.putPage(ctx, b, workspace, webhook, first, recs) })
	}
	return g.Wait()
}

func (s *Store) putPage(ctx context.Context, b *buckets, workspace, webhook string, first int32, recs []*storev1.DeliveryRecord) error {
	var apart []int32
	for _, rec := range recs {
		if proto.Size(rec) <= maxPaged {
			continue
		}
		if err := putApart(ctx, b, rec); err != nil {
			return err
		}
		apart = append(apart, rec.GetDelivery().GetNumber())
	}
	_, _, err := b.pages.Update(ctx, pageKey(workspace, webhook, first), func(p *storev1.DeliveryPage) (*storev1.DeliveryPage, error) {
		switch {
		case p.GetFirst() > first:
			return nil, kv.ErrSkip
		case p.GetFirst() < first:
			p = &storev1.DeliveryPage{First: first}
		}
		changed := false
		for _, rec := range recs {
			number := rec.GetDelivery().GetNumber()
			at, there := find(p, number)
			switch {
			case there, slices.Contains(p.GetApart(), number):
			case slices.Contains(apart, number):
				p.Apart, changed = append(p.Apart, number), true
			default:
				p.Deliveries, changed = slices.Insert(p.Deliveries, at, rec), true
			}
		}
		if !changed {
			return nil, kv.ErrSkip
		}
		return p, nil
	})
	return err
}

// putApart stores a delivery in a record of its own, unless it is there or a newer one is.
func putApart(ctx context.Context, b *buckets, rec *storev1.DeliveryRecord) error {
	d := rec.GetDelivery()
	_, _, err := b.deliveries.Update(ctx, deliveryKey(d.GetWorkspace(), d.GetWebhook(), d.GetNumber()), func(cur *storev1.DeliveryRecord) (*storev1.DeliveryRecord, error) {
		if cur.GetDelivery().GetNumber() >= d.GetNumber() {
			return nil, kv.ErrSkip
		}
		return rec, nil
	})
	return err
}

// Delivery reads a delivery; kv.ErrNotFound when there never was one of that number or it is no
// longer kept.
func (s *Store) Delivery(ctx context.Context, workspace, webhook string, number int32) (*storev1.DeliveryRecord, error) {
	return s.Reader(workspace, webhook).Delivery(ctx, number)
}

// Reader reads deliveries of one webhook, each page once. It is for one request, and safe for
// concurrent use.
type Reader struct {
	store              *Store
	workspace, webhook string
	mu                 sync.Mutex
	pages              map[int32]func() (*storev1.DeliveryPage, error)
}

// Reader makes a reader.
func (s *Store) Reader(workspace, webhook string) *Reader {
	return &Reader{store: s, workspace: workspace, webhook: webhook, pages: map[int32]func() (*storev1.DeliveryPage, error){}}
}

// Delivery is Store.Delivery.
func (r *Reader) Delivery(ctx context.Context, number int32) (*storev1.DeliveryRecord, error) {
	b, err := r.store.buckets()
	if err != nil {
		return nil, err
	}
	if number < 1 {
		return nil, gone(number)
	}
	page, err := r.page(ctx, b, firstOf(number))
	if err != nil {
		return nil, err
	}
	if at, there := find(page, number); there {
		return page.GetDeliveries()[at], nil
	}
	rec, _, err := b.deliveries.Get(ctx, deliveryKey(r.workspace, r.webhook, number))
	if err == nil && rec.GetDelivery().GetNumber() != number {
		return nil, gone(number)
	}
	return rec, err
}

// page reads a page, or an empty one where there is none or another.
func (r *Reader) page(ctx context.Context, b *buckets, first int32) (*storev1.DeliveryPage, error) {
	r.mu.Lock()
	read := r.pages[first]
	if read == nil {
		read = sync.OnceValues(func() (*storev1.DeliveryPage, error) {
			p, _, err := b.pages.Get(ctx, pageKey(r.workspace, r.webhook, first))
			if errors.Is(err, kv.ErrNotFound) || err == nil && p.GetFirst() != first {
				return &storev1.DeliveryPage{First: first}, nil
			}
			return p, err
		})
		r.pages[first] = read
	}
	r.mu.Unlock()
	return read()
}

func gone(number int32) error { return fmt.Errorf("%w: delivery %d", kv.ErrNotFound, number) }

// UpdateDelivery changes a delivery by compare-and-set; kv.ErrNotFound as for Delivery.
func (s *Store) UpdateDelivery(ctx context.Context, workspace, webhook string, number int32, change func(*storev1.DeliveryRecord) error) (*storev1.DeliveryRecord, error) {
	if err := s.UpdateDeliveries(ctx, workspace, webhook, map[int32]func(*storev1.DeliveryRecord) error{number: change}); err != nil {
		return nil, err
	}
	return s.Delivery(ctx, workspace, webhook, number)
}

// UpdateDeliveries changes deliveries of one webhook, those of a page together. A change that returns
// kv.ErrSkip leaves its delivery as it is, any other error ends it all. The error is kv.ErrNotFound
// when one is not kept, after the others were changed.
func (s *Store) UpdateDeliveries(ctx context.Context, workspace, webhook string, changes map[int32]func(*storev1.DeliveryRecord) error) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	by := map[int32][]int32{}
	var missing []error
	for number := range changes {
		if number < 1 {
			missing = append(missing, gone(number))
			continue
		}
		by[firstOf(number)] = append(by[firstOf(number)], number)
	}
	for first, numbers := range by {
		slices.Sort(numbers)
		err := s.updatePage(ctx, b, workspace, webhook, first, numbers, changes)
		switch {
		case errors.Is(err, kv.ErrNotFound):
			missing = append(missing, err)
		case err != nil:
			return err
		}
	}
	return errors.Join(missing...)
}

// errLarge says that a page does not take what is to be added.
var errLarge = errors.New("natsstore: the page is full")

func (s *Store) updatePage(ctx context.Context, b *buckets, workspace, webhook string, first int32, numbers []int32, changes map[int32]func(*storev1.DeliveryRecord) error) error {
	key := pageKey(workspace, webhook, first)
	for {
		var elsewhere []int32
		_, _, err := b.pages.Update(ctx, key, func(p *storev1.DeliveryPage) (*storev1.DeliveryPage, error) {
			elsewhere = nil
			changed := false
			for _, number := range numbers {
				at, there := find(p, number)
				if !there {
					elsewhere = append(elsewhere, number)
					continue
				}
				switch err := changes[number](p.GetDeliveries()[at]); {
				case err == nil:
					changed = true
				case !errors.Is(err, kv.ErrSkip):
					return nil, err
				}
			}
			switch {
			case !changed:
				return nil, kv.ErrSkip
			case proto.Size(p) > maxPage:
				return nil, errLarge
			}
			return p, nil
		})
		if errors.Is(err, errLarge) {
			if err = s.moveLargest(ctx, b, key, numbers); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		return updateApart(ctx, b, workspace, webhook, elsewhere, changes)
	}
}

func updateApart(ctx context.Context, b *buckets, workspace, webhook string, numbers []int32, changes map[int32]func(*storev1.DeliveryRecord) error) error {
	var missing []error
	for _, number := range numbers {
		_, _, err := b.deliveries.Update(ctx, deliveryKey(workspace, webhook, number), func(cur *storev1.DeliveryRecord) (*storev1.DeliveryRecord, error) {
			if cur.GetDelivery().GetNumber() != number {
				return nil, gone(number)
			}
			return cur, changes[number](cur)
		})
		switch {
		case errors.Is(err, kv.ErrNotFound):
			missing = append(missing, err)
		case err != nil:
			return err
		}
	}
	return errors.Join(missing...)
}

// moveLargest makes room in a page: one of the deliveries that grow, the largest, gets a record of
// its own. Until the page has forgotten it, the page is where it is read and changed.
func (s *Store) moveLargest(ctx context.Context, b *buckets, key string, growing []int32) error {
	p, _, err := b.pages.Get(ctx, key)
	if err != nil {
		return err
	}
	var moved *storev1.DeliveryRecord
	for _, rec := range p.GetDeliveries() {
		if slices.Contains(growing, rec.GetDelivery().GetNumber()) && (moved == nil || proto.Size(rec) > proto.Size(moved)) {
			moved = rec
		}
	}
	if moved == nil {
		return nil // somebody else has made room
	}
	number := moved.GetDelivery().GetNumber()
	d := moved.GetDelivery()
	_, _, err = b.deliveries.Update(ctx, deliveryKey(d.GetWorkspace(), d.GetWebhook(), number), func(cur *storev1.DeliveryRecord) (*storev1.DeliveryRecord, error) {
		if cur.GetDelivery().GetNumber() > number {
			return nil, kv.ErrSkip // a newer one took the place
		}
		return moved, nil
	})
	if err != nil {
		return err
	}
	_, _, err = b.pages.Update(ctx, key, func(p *storev1.DeliveryPage) (*storev1.DeliveryPage, error) {
		at, there := find(p, number)
		if !there || !proto.Equal(p.GetDeliveries()[at], moved) {
			return nil, kv.ErrSkip // changed since it was copied: once more
		}
		p.Deliveries, p.Apart = slices.Delete(p.Deliveries, at, at+1), append(p.Apart, number)
		return p, nil
	})
	return err
}
