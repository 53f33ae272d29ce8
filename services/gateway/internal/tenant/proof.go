package tenant

import (
	"context"
	"errors"

	"devpilot.io/bitbucket/pkg/kv"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// KeepProof keeps a workspace's newest proof of its connection to Bitbucket, encoded.
func (s *Store) KeepProof(ctx context.Context, workspace string, report []byte) error {
	_, _, err := s.proofs.Update(ctx, workspace, func(*gatewaystorev1.Proof) (*gatewaystorev1.Proof, error) {
		return &gatewaystorev1.Proof{Report: report}, nil
	})
	return kv.ToAPI(err)
}

// Proof is a workspace's newest proof; nil where there is none.
func (s *Store) Proof(ctx context.Context, workspace string) ([]byte, error) {
	p, _, err := s.proofs.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	return p.GetReport(), kv.ToAPI(err)
}

// doctorKey is no workspace's.
const doctorKey = "_doctor"

// ChangeDoctor changes what the installation's doctor found last, in one step. change gets nil where nothing was asked
// yet, may run several times, and leaves the record alone with kv.ErrSkip.
func (s *Store) ChangeDoctor(ctx context.Context, change func(p *gatewaystorev1.Proof) (*gatewaystorev1.Proof, error)) (*gatewaystorev1.Proof, error) {
	p, _, err := s.proofs.Update(ctx, doctorKey, change)
	return p, kv.ToAPI(err)
}

// Doctor is what the installation's doctor found last; nil where nothing was asked yet.
func (s *Store) Doctor(ctx context.Context) (*gatewaystorev1.Proof, error) {
	p, _, err := s.proofs.Get(ctx, doctorKey)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	return p, kv.ToAPI(err)
}
