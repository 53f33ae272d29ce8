// Package router unpacks the inbox into numbered deliveries and push events, in large batches, and
// acknowledges an inbox message after both are stored (DESIGN.md#a-delivery).
//
// An inbox message may come again: after a crash, or because the acknowledgement was lost. Each
// webhook's ledger therefore remembers which number a delivery got, for as long as its inbox message
// is not acknowledged and a while longer, so that a repeat stores the same delivery under the same
// number and publishes the same events. The ledger also recognises Bitbucket's own repeats: the same
// request id and body within the last deliveries is one delivery, whatever number of attempts
// Bitbucket needed because our answer came late.
//
// A webhook's deliveries in one batch keep their order. Two replicas may work on neighbouring
// batches, so that over a few milliseconds order can be lost, as Bitbucket itself promises none
// (BITBUCKET.md#delivery-tries): the deployer looks at the branch before it deploys.
//
// Depends on pkg/stream, natsstore, inbox and pushes; on the registry through an interface.
package router
