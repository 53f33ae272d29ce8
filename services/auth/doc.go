// Package auth is the service that owns integrations: which Bitbucket account a workspace is
// connected to, its tokens, and the OAuth handshakes that connect it. README.md says what it does
// and how it scales; its flows are DESIGN.md#connect, DESIGN.md#a-token-that-never-races, DESIGN.md#refusals and DESIGN.md#disconnect.
//
// Read in this order: service.go (the parts and how they are put together), internal/server (one RPC,
// one file), internal/connect and internal/handshake (how an account is connected), internal/token
// (how tokens are handed out and kept fresh), internal/rotation (the rules of that, as pure
// functions), internal/store.
package auth
