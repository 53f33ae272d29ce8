// Package scenario fills a product that runs beside the Bitbucket emulator with a story: people in every role, and apps
// and deployments in every state, for whoever builds a user interface (devpilot --emulator --scenario team).
//
// Nothing is written into stores: the story is played by people who sign in, over the public API, and by pushes and
// faults of the emulator. The order of one play: Open claims the data directory, People serves the identity provider
// that believes whoever chooses a person, Play tells the story once, Clock shows its times where they are fixed.
//
// Depends on pkg/bitbucket/emulator. Nothing else may use it but allinone.
package scenario
