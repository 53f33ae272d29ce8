// Package tenant keeps the workspaces, their teams with everybody's role, the accounts of people with their
// sessions, the invitations, and the API keys.
//
// Everything lies in key-value buckets of the gateway's own (DESIGN.md#state), and no request
// walks one: what must be listed (the workspaces of a subject, the keys of a workspace) has a record
// made for it. The role of today is always read from the team, never from a cookie
// or a token.
//
// It depends on pkg/kv, pkg/apierr and pkg/identity.
package tenant
