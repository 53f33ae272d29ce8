package store

import (
	"devpilot.io/bitbucket/pkg/sealed"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Sealed says what is sealed of an integration.
func Sealed() sealed.Place {
	return sealed.In(integrationsConfig(nil), func(_ string, rec *authstorev1.Integration) (all []sealed.Value) {
		if a := rec.GetAccess(); len(a.GetSealed()) > 0 {
			all = append(all, sealed.Value{Sealed: &a.Sealed, Associated: accessData(rec.GetWorkspace())})
		}
		if r := rec.GetRefresh(); len(r.GetSealed()) > 0 {
			all = append(all, sealed.Value{Sealed: &r.Sealed, Associated: refreshData(rec.GetWorkspace())})
		}
		for _, s := range rec.GetSpares() {
			if len(s.GetSealed()) > 0 {
				all = append(all, sealed.Value{Sealed: &s.Sealed, Associated: refreshData(rec.GetWorkspace())})
			}
		}
		return all
	})
}
