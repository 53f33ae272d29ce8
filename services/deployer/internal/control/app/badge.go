package app

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// badgePrefix and badgeSuffix make a path of a badge's key.
const badgePrefix, badgeSuffix = "/badges/", ".svg"

// badgeUse is the associated data of sealed badge keys: nothing else that is sealed passes for one.
const badgeUse = "deployer-badge"

// keyBadge makes the key of a badge that was switched on, and drops that of one that was switched off. A
// key is the app's name, sealed: who has none cannot make one, and it needs no index to be found by.
func (s *Service) keyBadge(a *storev1.App) error {
	if !a.GetBadge() {
		a.BadgeKey = ""
		return nil
	}
	if a.GetBadgeKey() != "" {
		return nil
	}
	sealed, err := s.cfg.Keyset.Seal([]byte(lane.Key{Workspace: a.GetWorkspace(), App: a.GetId()}.String()), []byte(badgeUse))
	if err != nil {
		return fmt.Errorf("app: seal a badge's key: %w", err)
	}
	a.BadgeKey = base64.RawURLEncoding.EncodeToString(sealed)
	return nil
}

func badgePath(a *storev1.App) string {
	if a.GetBadgeKey() == "" {
		return ""
	}
	return badgePrefix + a.GetBadgeKey() + badgeSuffix
}

// Badge tells what the badge with the key shows. A key that was never made costs no read of the store.
func (s *Service) Badge(ctx context.Context, key string) (deployerv1.ReadBadgeResponse_State, error) {
	none := apierr.New(apierr.ReasonNotFound, "There is no such badge: its link was revoked, or is not whole.")
	sealed, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return 0, none
	}
	name, err := s.cfg.Keyset.Open(sealed, []byte(badgeUse))
	if err != nil {
		return 0, none
	}
	var k lane.Key
	k.Workspace, k.App, _ = strings.Cut(string(name), ".")
	r, err := s.history(ctx)
	if err != nil {
		return 0, err
	}
	a, l, err := r.laneOf(ctx, k)
	switch {
	case apierr.Has(err, apierr.ReasonAppNotFound):
		return 0, none
	case err != nil:
		return 0, err
	case subtle.ConstantTimeCompare([]byte(a.GetBadgeKey()), []byte(key)) != 1:
		return 0, none
	}
	latest, err := s.deployment(ctx, r, k, a, l, l.GetLastNumber())
	if err != nil {
		return 0, err
	}
	return badgeState(latest, l.GetLive().GetNumber() > 0), nil
}

func badgeState(latest *deployerv1.Deployment, live bool) deployerv1.ReadBadgeResponse_State {
	switch state := latest.GetState(); {
	case state == deployerv1.Deployment_FAILED:
		return deployerv1.ReadBadgeResponse_FAILED
	case state == deployerv1.Deployment_PENDING || state == deployerv1.Deployment_PROCESSING:
		return deployerv1.ReadBadgeResponse_DEPLOYING
	case live:
		return deployerv1.ReadBadgeResponse_LIVE
	}
	return deployerv1.ReadBadgeResponse_NONE
}
