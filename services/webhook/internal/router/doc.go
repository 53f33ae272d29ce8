// Package router unpacks the inbox into numbered deliveries and push events, webhook by webhook, and
// acknowledges an inbox message after all of it is stored (DESIGN.md#a-delivery).
//
// Webhooks take turns, and each one's deliveries keep their order: one that has thousands waiting, or
// whose records cannot be written for now, holds up no other. A turn costs one write of the ledger,
// one for each page of records and one for many push events, however many deliveries it has.
//
// An inbox message may come again: after a crash, or because the acknowledgement was lost. Each
// webhook's ledger therefore remembers which numbers a message's deliveries got, for as long as the
// message may come, so that a repeat stores the same deliveries under the same numbers and publishes
// the events that are missing. The ledger also recognises Bitbucket's own repeats: the same request
// id and body within the last deliveries is one delivery, whatever number of attempts Bitbucket
// needed because our answer came late.
//
// Two replicas may work on neighbouring messages, so that over a few milliseconds order can be lost,
// as Bitbucket itself promises none (BITBUCKET.md#delivery-tries): the deployer polls the branch
// before it deploys.
//
// Depends on pkg/stream, pkg/fair, natsstore, inbox and pushes; on the registry through an interface.
package router
