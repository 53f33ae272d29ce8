package deployer_test

import (
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
)

func TestMain(m *testing.M) {
	testkit.Waiting()
	m.Run() // its result becomes the exit code
}
