// Package servicemain is the main program of the five service binaries, and the settings that they
// share with the all-in-one process (DESIGN.md#running).
//
// [Main] parses flags and environment, sets up logs, traces, metrics and the ops listener, binds,
// connects to NATS and Redis with bounded retries, builds the service, serves it, and shuts down in
// order. cmd/<name>/main.go hands it a [Spec] and nothing else; only Main exits the process.
//
// The flag groups (LogFlags, StoreFlags, …) are kong structs to embed in a service's own
// configuration. [Parse] reads any such configuration by the rules of the product: a flag wins over
// the environment; what is given empty, by either, means none where a setting can be none (a field's tag
// empty:"none"), and counts as not given elsewhere; blanks, line ends and byte order marks around a value,
// as of one that was pasted, are not part of it, and one within it is an error; a secret is taken from its
// variable or from the file that <NAME>_FILE names and never from the command line; an unknown flag or
// DEVPILOT_ variable is an error that suggests the nearest known one.
//
// A whole cmd/auth/main.go:
//
//	func main() {
//		servicemain.Main(servicemain.Spec[config]{
//			Name: "auth", Description: "Owns the Bitbucket connections and their tokens.",
//			GRPCListen: ":7001", OpsListen: ":7101", Policy: auth.Policy, Build: build,
//		})
//	}
//
// where build makes auth.New's Deps out of the [Env].
//
// Depends on kong, nats.go, go-redis, cenkalti/backoff, x/net/idna, and on pkg/lifecycle, pasted, logs, ops, rpc,
// identity, seal, stream and redisx.
package servicemain
