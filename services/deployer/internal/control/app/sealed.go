package app

import (
	"encoding/base64"

	"devpilot.io/bitbucket/pkg/sealed"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
)

// Sealed says what is sealed of an app. A badge's link stands in files of other people.
func Sealed() sealed.Place {
	return sealed.In(store.AppsConfig(nil), func(_ string, a *storev1.App) (all []sealed.Value) {
		for _, v := range a.GetVariables() {
			if len(v.GetSealed()) > 0 {
				all = append(all, sealed.Value{Sealed: &v.Sealed, Associated: apps.Associated(a, v.GetName(), v.GetBranches())})
			}
		}
		if link, err := base64.RawURLEncoding.DecodeString(a.GetBadgeKey()); err == nil && len(link) > 0 {
			all = append(all, sealed.Value{Sealed: &link, Stays: StaysBadges})
		}
		return all
	})
}

// StaysBadges is why the link of a badge is not sealed anew.
const StaysBadges = "links of badges"
