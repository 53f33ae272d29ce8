// Package e2e holds the end-to-end tests: the product as people, scripts and Bitbucket meet it, by
// the public API, real git over HTTP and real signed deliveries of the Bitbucket emulator.
//
// Scenarios are written once against [stack] and run on two topologies: all in one process, and as
// built processes (two of each service) with a real redis-server and nats-server. What can only be
// seen from outside, such as SIGKILL of the whole product, is tested with the built devpilot.
package e2e
