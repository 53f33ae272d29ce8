// Package allinone is the whole product in one process: the five services over in-memory gRPC, an
// embedded NATS server with JetStream on disk, an embedded Redis and, where asked for, a Bitbucket
// emulator. It is wiring only: every service is built by its own New and served by the same
// interceptors as in a process of its own, and no service knows that it runs here.
//
// The order of start and stop is in Product.components. What the data directory holds is in
// directory.go.
//
// Depends on all services, pkg/servicemain (settings, listeners), pkg/lifecycle, pkg/engine and
// pkg/bitbucket/emulator.
package allinone
