// Package server is devpilot.auth.v1 on the wire: one RPC, one file; each validates, calls one use
// case and maps. It depends on packages connect, token, status and store.
package server
