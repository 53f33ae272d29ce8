// Package cli is the command line over the public API: devpilot login, apps, deploy, log, why and the others.
// REFERENCE.md lists them; it is made of the program, and a test compares it.
//
// A command calls the API by the typed client and shows what came: as a table for people, or as JSON or YAML
// as the API wrote it. Progress is drawn on a terminal, and told in plain lines elsewhere. No secret is taken
// from the command line: keys and secret variables come from a prompt that does not show them, or from standard
// input. The key is kept in a file of mode 0600 (credentials.go).
//
// It depends on services/gateway/client/devpilot, and on nothing else of ours.
package cli
