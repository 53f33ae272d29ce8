package registry

import (
	"devpilot.io/bitbucket/pkg/sealed"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

// Sealed says what is sealed of a webhook.
func Sealed() sealed.Place {
	return sealed.In(natsstore.WebhooksConfig(nil), func(_ string, rec *storev1.WebhookRecord) (all []sealed.Value) {
		for _, s := range []*storev1.SealedSecret{rec.GetSecret(), rec.GetOldSecret()} {
			if len(s.GetSealed()) > 0 {
				all = append(all, sealed.Value{Sealed: &s.Sealed, Associated: secretContext(rec, s.GetVersion())})
			}
		}
		return all
	})
}
