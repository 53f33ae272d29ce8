// Package dex holds tests of signing in, with dex (github.com/dexidp/dex) as the provider: its server with its storage
// in memory, its pages, its password database and its connector for Atlassian Crowd, which has groups. The product is
// the built program beside it.
//
// dex publishes no module of its releases, only commits of its main branch; the pinned one is of release 2.30 and can be
// had of the module proxy. What it cannot do is sign-out at the provider (RP-initiated or back-channel logout) and
// sessions of its own; the tests of services/gateway have those with a provider of their own.
//
// The module stands outside of the workspace: what dex needs must not raise what the product needs. `make test-dex` runs
// it.
package dex
