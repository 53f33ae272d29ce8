// Package restored makes the deployer's records fit each other after they were restored from a backup that was
// taken while they changed: lanes as they were at one moment, and the records of deployments as they were a little later. A lane is
// the truth, and what its record says beyond is undone: the lane does it again.
//
// Depends on the stores.
package restored

import (
	"context"
	"fmt"
	"strings"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// epochs is how far the fences of a restored lane are raised: beyond whatever was claimed after the backup, so that the
// directories of apps can be claimed again. That is one per attempt of a deployment.
const epochs = 1 << 20

// Settled says what was done.
type Settled struct {
	Lanes   int // of apps
	Records int // of deployments
	Undone  int // records that were newer than their lane
}

// Settle makes the records fit. No process may use them meanwhile. It may be repeated.
func Settle(ctx context.Context, st *store.Store) (*Settled, error) {
	out, lanes := &Settled{}, map[string]*storev1.Lane{}
	err := st.Lanes.Each(ctx, ">", func(key string, l *storev1.Lane, _ uint64) error {
		lanes[key] = l
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("restored: read the lanes: %w", err)
	}
	if err := settleRecords(ctx, st.Deployments, lanes, out); err != nil {
		return nil, err
	}
	for key := range lanes {
		_, _, err := st.Lanes.Update(ctx, key, func(l *storev1.Lane) (*storev1.Lane, error) {
			l.Epoch += epochs
			if l.GetRunning() != nil {
				l.Running.Wake = 0 // who held it is gone
			}
			return l, nil
		})
		if err != nil {
			return nil, fmt.Errorf("restored: settle lane %s: %w", key, err)
		}
		out.Lanes++
	}
	return out, settleServers(ctx, st.Servers)
}

func settleRecords(ctx context.Context, records *store.Deployments, lanes map[string]*storev1.Lane, out *Settled) error {
	ahead := map[string]uint64{}
	err := records.Each(ctx, ">", func(key string, d *storev1.Deployment, rev uint64) error {
		out.Records++
		if isAhead(lanes[laneOf(key)], d) {
			ahead[key] = rev
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("restored: read the deployments: %w", err)
	}
	for key := range ahead {
		if err := undo(ctx, records, lanes[laneOf(key)], key); err != nil {
			return fmt.Errorf("restored: settle deployment %s: %w", key, err)
		}
		out.Undone++
	}
	return nil
}

// laneOf is the lane's key of a record's: all but the number.
func laneOf(record string) string { return record[:max(0, strings.LastIndexByte(record, '.'))] }

// isAhead tells whether a record has more than its lane knows of.
func isAhead(l *storev1.Lane, d *storev1.Deployment) bool {
	switch {
	case d.GetGeneration() != l.GetGeneration():
		return d.GetGeneration() > l.GetGeneration()
	case d.GetDeployment().GetNumber() > l.GetLastNumber():
		return true
	}
	return d.GetAppliedSeq() > l.GetOutboxSeq()
}

// undo takes a record back to what its lane says: away, where the lane has not made the deployment yet, else to its beginning.
func undo(ctx context.Context, records *store.Deployments, l *storev1.Lane, key string) error {
	d, rev, err := records.Get(ctx, key)
	if err != nil {
		return err
	}
	if d.GetGeneration() > l.GetGeneration() || d.GetDeployment().GetNumber() > l.GetLastNumber() {
		return records.Delete(ctx, key, rev)
	}
	_, _, err = records.Update(ctx, key, func(d *storev1.Deployment) (*storev1.Deployment, error) {
		if !isAhead(l, d) {
			return nil, kv.ErrSkip
		}
		takeBack(l, d)
		return d, nil
	})
	return err
}

// takeBack lets the record take the lane's changes again. Only a deployment that waits or runs can be ahead: the lane changes no
// other.
func takeBack(l *storev1.Lane, rec *storev1.Deployment) {
	rec.AppliedSeq = l.GetOutboxSeq()
	d := rec.GetDeployment()
	switch d.GetNumber() {
	case l.GetRunning().GetJob().GetNumber():
		d.State, rec.Epoch = deployerv1.Deployment_PROCESSING, l.GetRunning().GetEpoch()
	case l.GetWaiting().GetNumber(), l.GetAhead().GetNumber():
		d.State = deployerv1.Deployment_PENDING
	default:
		return
	}
	rec.Directory = ""
	d.EndTime, d.Error, d.SupersededBy, d.CancelTime, d.CancelledBy = nil, nil, 0, nil, nil
	if l.GetCancel().GetNumber() == d.GetNumber() {
		d.CancelTime, d.CancelledBy = l.GetCancel().GetTime(), l.GetCancel().GetActor()
	}
}

// settleServers has the first worker of each server look at what its data directory holds.
func settleServers(ctx context.Context, servers *store.Servers) error {
	var ids []string
	for id, err := range servers.Keys(ctx, ">") {
		if err != nil {
			return fmt.Errorf("restored: read the servers: %w", err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		_, _, err := servers.Update(ctx, id, func(s *storev1.Server) (*storev1.Server, error) {
			if s.GetRestored() {
				return nil, kv.ErrSkip
			}
			s.Restored = true
			return s, nil
		})
		if err != nil {
			return fmt.Errorf("restored: settle server %s: %w", id, err)
		}
	}
	return nil
}
