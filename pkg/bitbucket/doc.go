// Package bitbucket speaks to Bitbucket Cloud: its REST API and its OAuth endpoint.
//
// What it does:
//
//   - [Site] knows the two origins (site and API), builds clone and web URLs and decides which
//     URLs a credential may be sent to.
//   - [OAuth] exchanges codes and refreshes tokens, and says what a refusal means ([OAuthClass]).
//   - [Client] holds what all accounts share (connections, budget, metrics); [Client.As] gives an
//     [Account] that makes calls with one account's tokens.
//   - One request function applies time limits, body caps, the bearer header, the budget and the
//     single forced refresh after a 401. One pager walks every listing.
//   - [Error] is the one error of the REST calls. It turns into an *apierr.Error by errors.As, so
//     services pass it on as it is.
//
// The sub-package hook verifies and parses webhook deliveries. It depends on nothing here.
//
// Everything that is known about the wire is in BITBUCKET.md; comments cite its headings.
// The package depends on pkg/apierr and pkg/seal only. It stores nothing, logs no secret and never
// puts a token anywhere but in the Authorization header.
package bitbucket
