// Package ingress answers Bitbucket's deliveries: POST /webhooks/bitbucket/{webhook}.
//
// The order is fixed (DESIGN.md#a-delivery): cap the body, find the webhook by its
// unguessable path in the cache, verify the signature over the raw bytes, only then parse. Before
// a 404 or a 401 there is one rate-limited read from the store's leader, because the cache may be
// a moment behind. No call to Bitbucket and no RPC is made; a delivery that counts costs one
// durable write, shared with the others that wait.
//
//	202  stored; deployments follow from it
//	200  understood and needing nothing: another event, no branch changed, another repository,
//	     disconnected
//	400  the body is not the JSON it should be
//	401  the signature is missing or wrong      404  no such webhook
//	405  not POST                               413  more than 512 KiB
//	503  our own trouble; Bitbucket sends it again (BITBUCKET.md#delivery-tries)
//
// A verified delivery never gets 4xx for our reasons. The answer's body is short JSON for the person
// who reads it in Bitbucket's "View requests".
//
// What strangers can do is bounded: their bodies may take a quarter of the memory set aside, they
// cause a limited number of reads and of entries in the ring of refused requests, and that ring
// never pushes real deliveries out.
package ingress
