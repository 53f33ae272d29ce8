package tenant

import (
	"log/slog"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/sealed"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

func accountsConfig(logger *slog.Logger) kv.Config {
	return kv.Config{Name: accountsBucket, Version: 1, Inventory: "gateway", Logger: logger}
}

// Sealed says what is sealed of an account's sessions; bound is what a session's secrets are bound to.
func Sealed(bound func(subject, id string) []byte) sealed.Place {
	return sealed.In(accountsConfig(nil), func(key string, rec *gatewaystorev1.Account) (all []sealed.Value) {
		subject, err := kv.DecodeKey(key)
		if err != nil || len(subject) != 1 {
			return nil
		}
		for _, s := range rec.GetSessions() {
			for _, text := range []*[]byte{&s.SealedRefreshToken, &s.SealedIdToken} {
				if len(*text) > 0 {
					all = append(all, sealed.Value{Sealed: text, Associated: bound(subject[0], s.GetId())})
				}
			}
		}
		return all
	})
}
