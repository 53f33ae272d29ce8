// Package webhook is the service that owns the webhooks: their life at Bitbucket, the requests that
// Bitbucket delivers to them, and the push events that follow.
//
// Read in this order: service.go (the parts and how they hang together), internal/registry (the
// life of a webhook), internal/ingress (the HTTP path of a delivery), internal/inbox (the one
// durable write), internal/router (numbers, records, push events), internal/delivery (the log).
//
// A delivery's way:
//
//	Bitbucket → ingress → inbox (DEVPILOT_INBOX) → router → delivery records
//	                                                      → DEVPILOT_PUSHES → deployer
//	                                                        deployer → RecordOutcomes
//
// It owns the buckets webhook-* and the streams DEVPILOT_INBOX and DEVPILOT_PUSHES, publishes change
// events of the kinds webhook and delivery, and follows auth's of the kind integration. It calls
// auth (tokens, the state of an integration) and Bitbucket's hooks, never on the way of a delivery.
// Every replica does everything; what must be done once is decided by compare-and-set.
package webhook
