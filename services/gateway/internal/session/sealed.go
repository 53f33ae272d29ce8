package session

import (
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/sealed"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

func shortLivedConfig() kv.Config { return kv.Config{Name: shortLivedBucket, Version: 1, TTL: true} }

// Sealed says what is sealed of what disappears by itself.
func Sealed() sealed.Place {
	return sealed.In(shortLivedConfig(), func(_ string, rec *gatewaystorev1.ShortLived) []sealed.Value {
		r := rec.GetRequest()
		if len(r.GetSealedSecret()) == 0 {
			return nil
		}
		return []sealed.Value{{Sealed: &r.SealedSecret, Stays: "answers to requests, which are forgotten a day after them"}}
	})
}
