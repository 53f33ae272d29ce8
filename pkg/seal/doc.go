// Package seal holds what keeps secrets secret: [Secret], a string that prints "[redacted]" by
// every route, and [Keyset], the encryption that every token, webhook secret and secret variable
// goes through before it reaches a store (DESIGN.md#secrets).
//
// A Keyset is a Tink AEAD keyset (AES-256-GCM) read from one file, the root secret of an
// installation. It may hold several keys: the primary seals, all of them open, so that keys rotate
// without a gap: add a key everywhere, then promote it, then re-seal, then drop the old one.
//
// Depends on tink-go v2 and on nothing of ours.
package seal
