package rpc_test

import (
	"testing"

	"go.uber.org/goleak"

	"devpilot.io/bitbucket/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m, func() error { return goleak.Find() }) }
