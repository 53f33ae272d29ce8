// Package signin signs people in by OpenID Connect (DESIGN.md#people): which providers there are, what their
// claims make of somebody, and the pages that a browser and a provider visit on the way.
//
// A sign-in is the code flow with PKCE, a state and a nonce. What binds the answer to the browser is a sealed
// cookie; nothing is stored for somebody who only begins. A state works once. The issuer is exact, the
// audience is ours alone, and a token is as good as its signature by a key that the provider publishes today.
//
// Who a person is and what roles the rules give is asked at each sign-in, and again every few minutes by the
// refresh token that the provider gave; a session without one lasts until its life ends. Whoever the provider
// does not know any more, or who lost the last role, is signed out.
//
// Tokens checks what scripts send instead of an API key: tokens of issuers that the settings name, each for one
// workspace, with rules about their claims.
//
// One flow: Begin → the provider → ServeCallback → Provider.exchange → tenant.Arrive → session.Begin.
//
// It depends on go-oidc, internal/caller, internal/session, internal/tenant and internal/pages.
package signin
