package apps

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// SawFile remembers what .devpilot.yaml said in the commit that was read last, for people.
func (r *Records) SawFile(ctx context.Context, k lane.Key, generation int64, c *deployerv1.CodeConfig) error {
	_, _, err := r.Store.CodeConfigs.Update(ctx, k.String(), func(cur *storev1.CodeConfig) (*storev1.CodeConfig, error) {
		if cur.GetGeneration() > generation || proto.Equal(cur.GetConfig(), c) {
			return nil, kv.ErrSkip
		}
		return &storev1.CodeConfig{Generation: generation, Config: c}, nil
	})
	if err != nil {
		return fmt.Errorf("apps: remember what the file of %s said: %w", k, err)
	}
	return nil
}
