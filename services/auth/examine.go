package auth

import (
	"context"

	"devpilot.io/bitbucket/pkg/checkup"
)

// Checks is what the doctor asks this service: whether Bitbucket takes the OAuth consumer.
func (s *Service) Checks(context.Context) []checkup.Task {
	return []checkup.Task{{Name: "oauth-consumer", Run: func(ctx context.Context) checkup.Check {
		client := checkup.NewClient()
		defer client.CloseIdleConnections()
		return checkup.OAuth(ctx, client, s.consumer)
	}}}
}
