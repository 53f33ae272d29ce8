package gateway_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain makes sure that services that were started and stopped leave nothing running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
