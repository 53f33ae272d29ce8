// Package notify tells people what happened where they asked for it: by a signed webhook, in Slack's
// format, or by e-mail. A workspace without a target costs nothing.
//
//	change event ──> Watcher ──> streak (what was told, and an outbox) ──> queue of each target ──> Sender ──> receiver
//
// It lives in the gateway, because that owns the workspaces and the API keys, has the public URL and
// already reads the other services on behalf of somebody; a service of its own would need all of that
// again. What is to be told is stored before it is sent: the Watcher writes it to the streak of the
// thing that it is about, from there it goes into the queues of the targets, and only what is in a queue
// is sent. Each of these writes can be repeated, by any replica: a notification's id is made of the
// workspace, the app, the deployment and the kind, a queue takes each id once, and what was sent once
// and not noted as sent goes out again with the same Devpilot-Notification-Id.
//
// Addresses of receivers are chosen by the admins of a workspace, whom the operator need not trust:
// connections to private addresses are refused where they are made, redirects are not followed,
// answers are not read, and everything has a limit.
//
// It depends on internal/tenant, pkg/kv, pkg/stream, pkg/seal, go-mail and the clients of auth, webhook and deployer.
package notify
