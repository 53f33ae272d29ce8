package e2e

import (
	"context"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// stack is the product as a scenario sees it, however it is run.
type stack interface {
	// url is the gateway's address, where the webhooks arrive too.
	url() string
	// adminToken signs the local owner in.
	adminToken() string
	// bitbucket drives the emulator.
	bitbucket() *emulator.Control
	// emulatorURL is the emulator's site.
	emulatorURL() string
	// releases is the data directory of the server "default".
	releases() string
	// stopRedis and startRedis take Redis away and bring an empty one back.
	stopRedis()
	startRedis()
	// stopNATS and startNATS take NATS away and bring it back with what it stored.
	stopNATS()
	startNATS()
	// kill ends all of the product with SIGKILL where it has processes of its own; start brings it
	// back on the same data. Engines and emulator stay.
	kill()
	start()
	// places lists the files and directories where no secret may stand in clear.
	places() []string
	// output is all that the product logged so far.
	output() string
}

// topologies are the ways to run the product. Every scenario runs on each.
var topologies = []struct {
	name  string
	start func(t *testing.T, o options) stack
}{
	{"in one process", startInProcess},
	{"as processes", startProcesses},
}

// options change how a stack is started.
type options struct {
	scenario string // of the emulator; "sample" when empty
	tokens   emulator.TokenOptions
	env      map[string]string // further settings
}

// onEach runs a scenario on every topology.
func onEach(t *testing.T, o options, scenario func(t *testing.T, s stack)) {
	t.Helper()
	for _, topology := range topologies {
		t.Run(topology.name, func(t *testing.T) { scenario(t, topology.start(t, o)) })
	}
}

// owner is a browser signed in as the local owner.
func owner(t *testing.T, s stack) *api {
	t.Helper()
	return newBrowser(t, s.url()).signIn(s.adminToken())
}

func ctx(t *testing.T) context.Context { t.Helper(); return t.Context() }
