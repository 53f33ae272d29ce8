package registry

import (
	"context"

	"devpilot.io/bitbucket/pkg/seal"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// ToProve returns a webhook that deliveries can be proved with, its secret, and the URL that Bitbucket calls;
// nil where the workspace has none. It is for one request to ourselves: the secret goes nowhere.
func (r *Registry) ToProve(ctx context.Context, workspace string) (*storev1.WebhookRecord, seal.Secret, string, error) {
	list, _, err := r.List(ctx, workspace, 0, 0, listParallel)
	if err != nil {
		return nil, seal.Secret{}, "", err
	}
	for _, rec := range list {
		if len(rec.GetWatches()) == 0 {
			continue
		}
		secret, err := r.cfg.Vault.open(rec, rec.GetSecret())
		return rec, secret, r.cfg.View.Address.URL(rec.GetId()), err
	}
	return nil, seal.Secret{}, "", nil
}
