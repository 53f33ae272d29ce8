package allinone_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"devpilot.io/bitbucket/services/allinone"
)

// Every field of a stored record that is sealed is known to devpilot keyset: who adds one says in its service's Sealed where it stands, and
// here which bucket that is.
func TestSealed_everySealedFieldIsKnown(t *testing.T) {
	known := map[string]string{
		"devpilot.auth.store.v1.AccessToken.sealed": "DEVPILOT_AUTH_INTEGRATIONS", "devpilot.auth.store.v1.RefreshToken.sealed": "DEVPILOT_AUTH_INTEGRATIONS",
		"devpilot.auth.store.v1.SpareToken.sealed":                       "DEVPILOT_AUTH_INTEGRATIONS",
		"devpilot.webhook.store.v1.SealedSecret.sealed":                  "webhook-webhooks",
		"devpilot.deployer.store.v1.Variable.sealed":                     "deployer-apps",
		"devpilot.gateway.store.v1.ListedSession.sealed_refresh_token":   "gateway_accounts",
		"devpilot.gateway.store.v1.ListedSession.sealed_id_token":        "gateway_accounts",
		"devpilot.gateway.store.v1.NotificationTarget.sealed_url":        "gateway_notification_targets",
		"devpilot.gateway.store.v1.NotificationTarget.sealed_secret":     "gateway_notification_targets",
		"devpilot.gateway.store.v1.NotificationTarget.sealed_old_secret": "gateway_notification_targets",
		"devpilot.gateway.store.v1.Request.sealed_secret":                "gateway_short_lived",
		"devpilot.installation.store.v1.Canary.sealed":                   "", // installation.SealAnew
		"devpilot.installation.store.v1.Installation.sealed_canary":      "", // of the keyset that all shared
	}
	var buckets []string
	for _, service := range allinone.Sealers() {
		for _, p := range allinone.Sealed(service) {
			buckets = append(buckets, p.Bucket)
		}
	}
	seen := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !strings.HasSuffix(string(f.Package()), ".store.v1") {
			return true
		}
		for i := range f.Messages().Len() {
			fields := f.Messages().Get(i).Fields()
			for j := range fields.Len() {
				field := fields.Get(j)
				if field.Kind() != protoreflect.BytesKind || !strings.Contains(string(field.Name()), "sealed") {
					continue
				}
				seen++
				bucket, ok := known[string(field.FullName())]
				if !ok || bucket != "" && !slices.Contains(buckets, bucket) {
					t.Errorf("%s is sealed, and devpilot keyset does not know it", field.FullName())
				}
			}
		}
		return true
	})
	if seen != len(known) {
		t.Errorf("%d sealed fields of %d were found", seen, len(known))
	}
}
