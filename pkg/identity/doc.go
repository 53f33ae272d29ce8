// Package identity says who is calling, inside the product (DESIGN.md#who-calls).
//
// Two kinds of short-lived EdDSA tokens travel with every RPC. A user token names the person or
// key on whose behalf the call is made, with workspace and role; only the gateway signs it, and
// services pass it on unchanged. A caller token names the service that makes this very call and
// the one it is meant for; the calling service signs it with its own key. Both live 60 seconds.
//
// Keys come from one JSON file per process: public keys of all services, private keys of those
// the process runs. Several keys per service allow rotation.
//
// A signature costs more than all else of a small call. Signers reuse a token for a part of its life,
// verifiers remember a good one until it expires; both are bounded. Nothing about today's rights hangs
// on it: sessions, keys and roles are looked up by the gateway at each request, and another role is
// another token.
//
// Depends on golang-jwt v5, golang-lru v2 and on pkg/seal for writing files; on no transport.
package identity
