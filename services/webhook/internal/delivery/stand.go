package delivery

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Stand is what the log knows of a webhook.
type Stand struct {
	LastDelivery int32 // number; 0 when none came
	LastVerified *timestamppb.Timestamp
	LastRefused  *timestamppb.Timestamp
}

// Stand tells what last came to a webhook.
func (l *Log) Stand(ctx context.Context, workspace, webhook string) (Stand, error) {
	ledger, ring, err := l.cfg.Store.Stand(ctx, workspace, webhook)
	if err != nil {
		return Stand{}, err
	}
	s := Stand{LastDelivery: ledger.GetLastNumber(), LastVerified: ledger.GetLastVerifiedTime()}
	if n := len(ring.GetRequests()); n > 0 {
		s.LastRefused = ring.GetRequests()[n-1].GetReceiveTime()
	}
	return s, nil
}
