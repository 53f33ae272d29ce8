package webhook

import (
	"context"
	"strings"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/seal"
)

// examined is what the doctor's check needs.
type examined struct {
	publicURL, siteURL string
	keyset             *seal.Keyset
}

// Checks is what the doctor asks this service: whether a signed delivery to ourselves arrives.
func (s *Service) Checks(context.Context) []checkup.Task {
	return []checkup.Task{{Name: checkup.DeliveryName, Run: func(ctx context.Context) checkup.Check {
		client := checkup.NewClient()
		defer client.CloseIdleConnections()
		return checkup.Delivery(ctx, client, strings.TrimSuffix(s.examined.publicURL, "/"), s.examined.siteURL, s.examined.keyset)
	}}}
}
