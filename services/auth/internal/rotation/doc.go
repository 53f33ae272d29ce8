// Package rotation holds the rules by which the tokens of one integration are renewed: DESIGN.md#a-token-that-never-races
// and DESIGN.md#refusals, as pure functions from a record to the next one.
//
// Bitbucket's refresh tokens rotate: each may be spent once (perhaps again within some minutes of
// grace), and its answer must be stored or the connection is lost. Several processes may try at the
// same time, be stopped for a minute in the middle, or die. The rules here decide who may try
// ([Acquire]), in which order the tokens are tried ([Attempt]), and what an answer, a refusal or
// trouble does to whatever the record has become meanwhile ([StoreAnswer], [RecordRefusal],
// [RecordTrouble]). They do no I/O, read no clock and change no argument; package token drives them
// in production, and the model test drives the very same functions through every interleaving.
//
// It depends on the stored records (proto/devpilot/auth/store/v1) only.
package rotation
