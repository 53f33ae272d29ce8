// Package delivery shows what came to a webhook and what came of it, and has deliveries considered
// again. Pages are direct gets by number, newest first; a page with a filter examines a bounded
// number of deliveries and may come back short.
//
// Depends on natsstore, inbox and pushes.
package delivery
