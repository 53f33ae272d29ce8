// Package doctor checks an installation from its settings: `devpilot doctor`. It takes the environment and
// the flags that the programs take, and changes nothing that stays.
//
// Flow: [Run] reads the settings as a program does (settings.go) → every check runs at once, each within its
// time (exam.go) → a [Report] as a table or as JSON (report.go). The checks are those of pkg/checkup, which the services
// answer for themselves too, and of the deployer (host.go); here stands what only settings tell: whether the program has to
// do with them, and what is known of stores in the program (stores.go, embedded.go), keys that are not there yet (keys.go)
// and the other services (services.go).
//
// Depends on the settings of allinone and of all services, which are built over nothing to be validated, and
// on pkg/checkup.
package doctor
