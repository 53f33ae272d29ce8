// Package connect is the flow that links a workspace to a Bitbucket account: DESIGN.md#connect.
// It begins handshakes, sends browsers to Bitbucket, and when Bitbucket sends them back
// exchanges the code once, checks what was granted, reads whose account it is and stores the
// integration. A grant that does not suffice replaces nothing.
//
// It depends on package handshake and, through the interfaces it declares, on Bitbucket and the
// store.
package connect
