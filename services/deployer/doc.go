// Package deployer is the service that owns apps, their lanes, deployments, logs and releases
// (DESIGN.md#services and DESIGN.md#a-push-becomes-a-deployment).
//
// It has two roles, both on by default. The api serves devpilot.deployer.v1, routes push events to
// lanes, reconciles and looks after what is due; it keeps nothing on disk, and is
// scaled freely. Workers serve one server's data directory: they take wake-ups from a queue, fetch,
// check out and switch releases.
//
// Read roles.go for what it is made of, then internal/control/control.go and internal/worker/worker.go,
// internal/control/server, one file per RPC, then internal/record/lane, which holds the rules of
// what runs when, and internal/worker/pipeline, which runs it.
package deployer
