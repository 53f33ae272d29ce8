package delivery

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Stand is what the log knows of a webhook.
type Stand struct {
	LastDelivery int32 // number; 0 when none came
	LastVerified *timestamppb.Timestamp
	Refused      []*webhookv1.Delivery // the newest refused requests, oldest first
}

// Stand tells what last came to a webhook.
func (l *Log) Stand(ctx context.Context, workspace, webhook string) (Stand, error) {
	ledger, ring, err := l.cfg.Store.Stand(ctx, workspace, webhook)
	if err != nil {
		return Stand{}, err
	}
	return Stand{LastDelivery: ledger.GetLastNumber(), LastVerified: ledger.GetLastVerifiedTime(), Refused: ring.GetRequests()}, nil
}
