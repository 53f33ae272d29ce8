package notify

import (
	"log/slog"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/sealed"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

func targetsConfig(logger *slog.Logger) kv.Config {
	return kv.Config{Name: targetsBucket, Version: 1, Inventory: "gateway", Logger: logger}
}

// Sealed says what is sealed of a workspace's targets.
func Sealed() sealed.Place {
	return sealed.In(targetsConfig(nil), func(_ string, rec *gatewaystorev1.NotificationTargets) (all []sealed.Value) {
		for _, t := range rec.GetTargets() {
			for _, v := range []sealed.Value{
				{Sealed: &t.SealedUrl, Associated: urlOf(t.GetPublic())},
				{Sealed: &t.SealedSecret, Associated: secretOf(t.GetPublic())},
				{Sealed: &t.SealedOldSecret, Associated: secretOf(t.GetPublic())},
			} {
				if len(*v.Sealed) > 0 {
					all = append(all, v)
				}
			}
		}
		return all
	})
}
