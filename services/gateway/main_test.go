package gateway_test

import (
	"testing"

	"go.uber.org/goleak"

	"devpilot.io/bitbucket/pkg/testkit"
)

// TestMain makes sure that services that were started and stopped leave nothing running.
func TestMain(m *testing.M) { testkit.Main(m, func() error { return goleak.Find() }) }
