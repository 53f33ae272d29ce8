// Package doctor checks an installation from its settings: `devpilot doctor`. It takes the environment and
// the flags that the programs take, and changes nothing that stays.
//
// Flow: [Run] reads the settings as a program does (settings.go) → every check runs at once, each within its
// time (exam.go) → a [Report] as a table or as JSON (report.go). A check finds one thing out and says what to
// do about it: the stores (nats.go, embedded.go, redis.go), keys (keys.go), this machine (host.go), what is
// seen from outside and at Bitbucket (outside.go), the other services (services.go).
//
// Depends on the settings of allinone and of all services, which are built over nothing to be validated, and
// on pkg/stream, installation, engine and bitbucket, where what is checked is decided.
package doctor
