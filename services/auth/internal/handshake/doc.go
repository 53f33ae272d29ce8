// Package handshake keeps connects in flight: DESIGN.md#connect.
//
// A handshake lives ten minutes in Redis and is spent in two steps, each once. [Store.Begin] makes
// its id, which the address of our own start page carries; [Store.Authorize] turns the id into the
// state that goes through Bitbucket, a PKCE verifier, and a binding secret that goes into a cookie
// of the visitor's browser; [Store.Complete] turns the state into the handshake again when Bitbucket
// redirects back. Both steps check who is there before anything is spent. Ids and states are stored
// as digests, what belongs to them is sealed: who can read Redis cannot take a connect over.
//
// It depends on pkg/redisx and pkg/seal. When Redis is away nobody can connect, after a few seconds of
// waiting for it; everything else goes on.
package handshake
