// Package emulator is Bitbucket Cloud as a server, as far as an integration can see it: OAuth with a consent page,
// the REST API, git over HTTP and signed webhook deliveries. It follows BITBUCKET.md and
// defines all JSON itself: it shares no type with our client, so that the two cannot agree on the same mistake.
//
// It is used in three ways: inside Go tests, inside the all-in-one process behind --emulator, and as the
// bitbucket-emulator program in end-to-end tests. Tests drive all three by the same [Control] client.
//
// # URLs
//
// One origin, Options.SiteURL, plays both of Bitbucket's hosts:
//
//	SiteURL/                          a page for people: accounts, passwords, repositories
//	SiteURL/site/oauth2/authorize     consent page        SiteURL/site/oauth2/access_token   token endpoint
//	SiteURL/2.0/…                     REST API            SiteURL/{workspace}/{repo}.git     git
//	SiteURL/{workspace}/{repo}/admin/webhooks             webhooks, "View requests"
//	SiteURL/account/settings/app-authorizations/          revoke a grant
//	SiteURL/_emulator/…               control API, from loopback only
//
// # Consent with nothing but curl
//
// The consent page is one form that posts to its own URL, query included. Its fields are
//
//	account   user name, e.g. jane-dev (remembered in the cookie emulator_session)
//	action    grant | cancel | switch
//
// so one request does it, and the answer's Location is the callback:
//
//	curl -s -o /dev/null -w '%{redirect_url}\n' -d account=jane-dev -d action=grant "$AUTHORIZE_URL"
//
// # Faults
//
// A [Fault] makes requests, deliveries or the world go wrong, for chosen repositories and routes, so many times, for so
// long, or until it is removed. [Emulator.Inject], [Control.Inject] and the control API take the same fields:
//
//	Inject(Fault{Route: "git", Repository: "acme/old", Status: 401})                      // each plane says it in its own words
//	Inject(Fault{Route: "api", Status: 429, RetryAfter: 2 * time.Second, Times: 3})
//	Inject(Fault{Route: "GET /2.0/repositories/{workspace}/{repository}/refs/branches", Repository: "acme/web", Status: 404, For: time.Minute})
//	Inject(Fault{Kind: FaultFlush, Repository: "acme/web"})                               // no refs: `0000` to ls-refs
//	Inject(Fault{Kind: FaultWrongBody, Route: "git"})                                     // JSON where a pack should be
//	Inject(Fault{Kind: FaultReset, Route: "oauth"})                                       // also truncated, halved, trickle, slow
//	Inject(Fault{Kind: FaultLateDelivery, Repository: "acme/web", Delay: 5 * time.Second})
//	Inject(Fault{Kind: FaultNameTaken, Repository: "acme/web", Slug: "web-legacy"})       // a stranger is acme/web from now on
//
//	curl -d '{"route":"git:fetch","repository":"acme/web","status":503,"for":"30s"}' "$SITE/_emulator/faults"
//	curl -d '{"slug":"web-legacy","taken_by":{"seed":"stranger"}}' "$SITE/_emulator/repositories/acme/web/rename"
//	curl -X DELETE "$SITE/_emulator/faults"
//
// GET /_emulator/faults tells how often each was hit; the journal of requests names the fault that answered.
//
// # State
//
// Accounts, repositories, webhooks, build statuses, grants and tokens live in memory and in one bbolt file under
// Options.DataDir; each change is in the file before it is answered, so that a killed process (kill -9) continues where
// it was. Tokens are kept as SHA-256 only, webhook secrets encrypted. Request log, counters, faults and switches start
// fresh with each process. Git repositories are bare directories beside it, made when first touched.
//
// Everything is safe for concurrent use.
package emulator
