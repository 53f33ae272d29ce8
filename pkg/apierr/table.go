package apierr

import (
	"google.golang.org/grpc/codes"
)

// Reason names what happened, in UPPER_SNAKE. Reasons are part of the public API: add, never
// rename (DESIGN.md#errors).
type Reason string

// The reasons of requests and callers.
const (
	ReasonUnauthenticated    Reason = "UNAUTHENTICATED"
	ReasonPermissionDenied   Reason = "PERMISSION_DENIED"
	ReasonBrowserRequired    Reason = "BROWSER_REQUIRED"
	ReasonCrossOriginRefused Reason = "CROSS_ORIGIN_REFUSED"
	ReasonHostUnknown        Reason = "HOST_UNKNOWN"
	ReasonInvalidArgument    Reason = "INVALID_ARGUMENT"
	ReasonPageTokenInvalid   Reason = "PAGE_TOKEN_INVALID"
	ReasonEtagMismatch       Reason = "ETAG_MISMATCH"
	ReasonRequestIDReused    Reason = "REQUEST_ID_REUSED"
	ReasonRateLimited        Reason = "RATE_LIMITED"
	ReasonPayloadTooLarge    Reason = "PAYLOAD_TOO_LARGE"
	ReasonUnsupportedMedia   Reason = "UNSUPPORTED_MEDIA_TYPE"
	ReasonNotFound           Reason = "NOT_FOUND" // an unknown route
	ReasonMethodNotAllowed   Reason = "METHOD_NOT_ALLOWED"
	ReasonUnimplemented      Reason = "UNIMPLEMENTED"
	ReasonStorageUnavailable Reason = "STORAGE_UNAVAILABLE"
	ReasonServiceUnavailable Reason = "SERVICE_UNAVAILABLE" // one of our own services does not answer
	ReasonTimeout            Reason = "TIMEOUT"
	ReasonCanceled           Reason = "CANCELED"
	ReasonInternal           Reason = "INTERNAL"
)

// The reasons of our own resources.
const (
	ReasonWorkspaceNotFound          Reason = "WORKSPACE_NOT_FOUND"
	ReasonWorkspaceExists            Reason = "WORKSPACE_EXISTS"
	ReasonWorkspaceBeingDeleted      Reason = "WORKSPACE_BEING_DELETED"
	ReasonMemberNotFound             Reason = "MEMBER_NOT_FOUND"
	ReasonMemberManaged              Reason = "MEMBER_MANAGED" // a rule of the identity provider says it
	ReasonLastOwner                  Reason = "LAST_OWNER"
	ReasonTeamFull                   Reason = "TEAM_FULL"
	ReasonInvitationNotFound         Reason = "INVITATION_NOT_FOUND"
	ReasonInvitationInvalid          Reason = "INVITATION_INVALID"
	ReasonSessionNotFound            Reason = "SESSION_NOT_FOUND"
	ReasonSignInFailed               Reason = "SIGN_IN_FAILED"
	ReasonNotAMember                 Reason = "NOT_A_MEMBER"
	ReasonProviderUnavailable        Reason = "IDENTITY_PROVIDER_UNAVAILABLE"
	ReasonAPIKeyNotFound             Reason = "API_KEY_NOT_FOUND"
	ReasonLoginRequestNotFound       Reason = "LOGIN_REQUEST_NOT_FOUND"
	ReasonLoginRequestAnswered       Reason = "LOGIN_REQUEST_ANSWERED"
	ReasonNotificationTargetNotFound Reason = "NOTIFICATION_TARGET_NOT_FOUND"
	ReasonAppNotFound                Reason = "APP_NOT_FOUND"
	ReasonAppExists                  Reason = "APP_EXISTS"
	ReasonDeploymentNotFound         Reason = "DEPLOYMENT_NOT_FOUND"
	ReasonWebhookNotFound            Reason = "WEBHOOK_NOT_FOUND"
	ReasonWebhookInUse               Reason = "WEBHOOK_IN_USE"
	ReasonWebhookNotNeeded           Reason = "WEBHOOK_NOT_NEEDED"
	ReasonDeliveryNotFound           Reason = "DELIVERY_NOT_FOUND"
	ReasonRepositoryNotFound         Reason = "REPOSITORY_NOT_FOUND"
	ReasonBranchNotFound             Reason = "BRANCH_NOT_FOUND"
	ReasonTagNotFound                Reason = "TAG_NOT_FOUND"
	ReasonCommitNotFound             Reason = "COMMIT_NOT_FOUND"
	ReasonCommitAmbiguous            Reason = "COMMIT_AMBIGUOUS"     // the beginning of a hash that several commits have
	ReasonCommitNotInBranch          Reason = "COMMIT_NOT_IN_BRANCH" // nor may it be deployed from there
	ReasonReleaseGone                Reason = "RELEASE_GONE"
	ReasonNotCancellable             Reason = "NOT_CANCELLABLE"
	ReasonNotRedeployable            Reason = "NOT_REDEPLOYABLE"
	ReasonServerUnknown              Reason = "SERVER_UNKNOWN"
)

// The reasons of Bitbucket and of the connection to it. None of them is ever 401 or 403: the
// caller's own credentials are fine.
const (
	ReasonNotConnected         Reason = "NOT_CONNECTED"
	ReasonTokenExpired         Reason = "TOKEN_EXPIRED"
	ReasonReconnectRequired    Reason = "RECONNECT_REQUIRED"
	ReasonScopeMissing         Reason = "SCOPE_MISSING"
	ReasonConsumerRefused      Reason = "CONSUMER_REFUSED"
	ReasonNotRepositoryAdmin   Reason = "NOT_REPOSITORY_ADMIN"
	ReasonAccessRestricted     Reason = "ACCESS_RESTRICTED"            // IP allow-list, two-step verification
	ReasonWorkspaceExcluded    Reason = "BITBUCKET_WORKSPACE_EXCLUDED" // an admin narrowed the workspace away from it
	ReasonAccessRefused        Reason = "ACCESS_REFUSED"               // 401 about one thing; the connection is fine
	ReasonWebhookRefused       Reason = "WEBHOOK_REFUSED"              // for another reason than its address or rights
	ReasonWebhookLimit         Reason = "WEBHOOK_LIMIT_REACHED"
	ReasonWebhookDeactivated   Reason = "WEBHOOK_DEACTIVATED" // somebody switched it off at Bitbucket
	ReasonNoPublicURL          Reason = "NO_PUBLIC_URL"
	ReasonBitbucketRateLimited Reason = "BITBUCKET_RATE_LIMITED"
	ReasonBitbucketUnavailable Reason = "BITBUCKET_UNAVAILABLE"
	ReasonHandshakeExpired     Reason = "HANDSHAKE_EXPIRED"
	ReasonHandshakeMismatch    Reason = "HANDSHAKE_MISMATCH"
	ReasonConsentDenied        Reason = "CONSENT_DENIED"
	ReasonAppsWouldStop        Reason = "APPS_WOULD_STOP"
)

// Row is one line of the table: everything that follows from a reason.
type Row struct {
	Reason     Reason
	Kind       Kind
	Code       codes.Code
	HTTPStatus int
	Retry      Retry
	Title      string // short, the same for every occurrence
	Remedy     string // a sentence: what the caller can do
}

type reasonRow struct {
	reason Reason
	kind   Kind
	retry  Retry // empty: the kind's
	remedy string
}

// reasons is the reason half of the table, in the order in which it is published.
var reasons = []reasonRow{
	{ReasonUnauthenticated, Unauthenticated, "", "Sign in again, or send a valid API key or admin token as Authorization: Bearer."},
	{ReasonPermissionDenied, PermissionDenied, "", "Ask an owner or admin of the workspace to do it or to raise your role."},
	{ReasonBrowserRequired, PermissionDenied, "", "Have an owner or admin do it in the console, signed in with a browser."},
	{ReasonCrossOriginRefused, PermissionDenied, "", "Send the request from Devpilot's own pages, or have the operator add the origin to --allowed-origins."},
	{ReasonHostUnknown, Invalid, "", "Use the address in DEVPILOT_PUBLIC_URL, or have the operator correct that setting."},
	{ReasonInvalidArgument, Invalid, "", "Correct the fields named in the answer and send the request again."},
	{ReasonPageTokenInvalid, Invalid, "", "Start again at the first page; keep the filters unchanged between pages."},
	{ReasonEtagMismatch, Aborted, "", "Read the resource again, repeat the change on what is there now and send its new etag."},
	{ReasonRequestIDReused, AlreadyExists, "", "Use a new requestId for a different request."},
	{ReasonRateLimited, ResourceExhausted, "", "Wait for the time in retryAfterSeconds, then try again."},
	{ReasonPayloadTooLarge, TooLarge, "", "Send a smaller body."},
	{ReasonUnsupportedMedia, MediaType, "", "Send the body as JSON in UTF-8, with Content-Type: application/json."},
	{ReasonNotFound, NotFound, "", "Check the path against the API description at /openapi.json."},
	{ReasonMethodNotAllowed, MethodNotAllowed, "", "Use one of the methods in the Allow header."},
	{ReasonUnimplemented, Unimplemented, "", "Update Devpilot: this part of it does not know the request yet."},
	{ReasonStorageUnavailable, Unavailable, "", "Try again in a moment; if it stays, the operator should check NATS JetStream."},
	{ReasonServiceUnavailable, Unavailable, "", "Try again in a moment; if it stays, the operator should check that all services run."},
	{ReasonTimeout, DeadlineExceeded, "", "Try again; if it stays, the operator should check the load of the services."},
	{ReasonCanceled, Canceled, "", "Send the request again if you still want its result."},
	{ReasonInternal, Internal, "", "Try again; if it stays, give the operator the error id."},

	{ReasonWorkspaceNotFound, NotFound, "", "Check the workspace id, create the workspace, or ask to be made a member of it."},
	{ReasonWorkspaceExists, AlreadyExists, "", "Choose another workspace id."},
	{ReasonWorkspaceBeingDeleted, FailedPrecondition, "", "Use another workspace: an owner deletes this one, and all that is in it."},
	{ReasonMemberNotFound, NotFound, "", "Check who is a member of the workspace."},
	{ReasonMemberManaged, FailedPrecondition, "", "Change the person's groups at the identity provider, or the rules in --identity-providers-file."},
	{ReasonLastOwner, FailedPrecondition, "", "Make somebody else an owner of the workspace first."},
	{ReasonTeamFull, FailedPrecondition, "", "Remove members or withdraw invitations that are not needed any more."},
	{ReasonInvitationNotFound, NotFound, "", "Check the list of invitations; it may have been accepted or withdrawn, or have expired."},
	{ReasonInvitationInvalid, FailedPrecondition, "", "Ask whoever invited you for a new invitation, to the e-mail address that your provider has verified."},
	{ReasonSessionNotFound, NotFound, "", "Check the list of sessions; it may have ended."},
	{ReasonSignInFailed, FailedPrecondition, "", "Sign in again. If it stays, the operator finds the cause in the log by the request's id."},
	{ReasonNotAMember, PermissionDenied, "", "Ask an owner of a workspace for an invitation, or to be added to one of the groups that are let in."},
	{ReasonProviderUnavailable, Unavailable, "", "Try again in a moment; if it stays, the operator should check that Devpilot reaches the identity provider."},
	{ReasonAPIKeyNotFound, NotFound, "", "Check the list of API keys; it may have been removed."},
	{ReasonLoginRequestNotFound, NotFound, "", "Run devpilot login again: a login must be approved within ten minutes, and works once."},
	{ReasonLoginRequestAnswered, FailedPrecondition, "", "Nothing to do: somebody decided already. Run devpilot login again for another decision."},
	{ReasonNotificationTargetNotFound, NotFound, "", "Check the list of notification targets; it may have been removed."},
	{ReasonAppNotFound, NotFound, "", "Check the app id; the app may have been deleted."},
	{ReasonAppExists, AlreadyExists, "", "Choose another app id, or change the app that is there."},
	{ReasonDeploymentNotFound, NotFound, "", "Check the deployment's number in the app's history."},
	{ReasonWebhookNotFound, NotFound, "", "Check the workspace's list of webhooks."},
	{ReasonWebhookInUse, FailedPrecondition, "", "Switch auto-deploy off in the apps that use the webhook; it is then removed from Bitbucket by itself."},
	{ReasonWebhookNotNeeded, FailedPrecondition, "", "Switch auto-deploy on in an app of the repository first."},
	{ReasonDeliveryNotFound, NotFound, "", "Check the webhook's list of deliveries; old ones are removed."},
	{ReasonRepositoryNotFound, NotFound, "", "Refresh the list of repositories; the connected account may have lost access to this one."},
	{ReasonBranchNotFound, NotFound, "", "Choose one of the repository's branches, or push the branch first."},
	{ReasonTagNotFound, NotFound, "", "Choose one of the repository's tags, or push the tag first."},
	{ReasonCommitNotFound, NotFound, "", "Check the hash against the branch's list of commits, or push the commit first."},
	{ReasonCommitAmbiguous, FailedPrecondition, "", "Give more digits of the hash, best all 40."},
	{ReasonCommitNotInBranch, FailedPrecondition, "", "Choose a commit of the branch's history, name the branch that has it, or a tag that points to it."},
	{ReasonReleaseGone, FailedPrecondition, "", "Redeploy the commit: its release directory was removed by retention."},
	{ReasonNotCancellable, FailedPrecondition, "", "Nothing to do: the deployment has ended or is past the point of no return."},
	{ReasonNotRedeployable, FailedPrecondition, "", "Deploy the branch's latest commit instead: this deployment ended before it had one."},
	{ReasonServerUnknown, FailedPrecondition, "", "Choose one of the servers listed at /v1/servers, or start a worker for this one."},

	{ReasonNotConnected, FailedPrecondition, "", "An owner or admin connects Bitbucket under Integrations."},
	{ReasonTokenExpired, FailedPrecondition, RetryBackoff, "Try again in a moment, or press Refresh Token under Integrations."},
	{ReasonReconnectRequired, FailedPrecondition, "", "An owner or admin connects Bitbucket again under Integrations; apps and history stay."},
	{ReasonScopeMissing, FailedPrecondition, "", "Add the missing scope to the OAuth consumer at Bitbucket and connect again."},
	{ReasonConsumerRefused, FailedPrecondition, RetryAfter, "The operator checks the OAuth consumer's key and secret at Bitbucket against DEVPILOT_BITBUCKET_CLIENT_ID and _SECRET."},
	{ReasonNotRepositoryAdmin, FailedPrecondition, "", "Give the connected account admin permission on the repository, or add the webhook by hand with the URL and secret shown."},
	{ReasonAccessRestricted, FailedPrecondition, "", "At Bitbucket, allow this server's address in the IP allow-list, or switch on two-step verification for the connected account."},
	{ReasonWorkspaceExcluded, FailedPrecondition, "", "An owner or admin can add the Bitbucket workspace to those that this workspace is narrowed to, under Integrations."},
	{ReasonAccessRefused, FailedPrecondition, RetryBackoff, "Try again in a few minutes: the connection itself is fine. If it stays, check at Bitbucket that the connected account may still read the repository."},
	{ReasonWebhookRefused, FailedPrecondition, "", "Add the webhook by hand with the URL and secret shown; the message says what Bitbucket had against it."},
	{ReasonWebhookDeactivated, FailedPrecondition, "", "If it was not meant, press Repair: Devpilot switches the webhook on again. Until then pushes are found by polling."},
	{ReasonWebhookLimit, FailedPrecondition, "", "Delete a webhook that is no longer needed from the repository at Bitbucket, then register again."},
	{ReasonNoPublicURL, FailedPrecondition, "", "Set DEVPILOT_PUBLIC_URL to an https address that Bitbucket can reach; until then Devpilot asks Bitbucket for new commits at intervals."},
	{ReasonBitbucketRateLimited, ResourceExhausted, "", "Wait for the time in retryAfterSeconds: Bitbucket limits the calls per hour."},
	{ReasonBitbucketUnavailable, Unavailable, "", "Try again in a moment; see Bitbucket's status page if it stays."},
	{ReasonHandshakeExpired, FailedPrecondition, "", "Start the connection again under Integrations; it must be finished within 10 minutes."},
	{ReasonHandshakeMismatch, FailedPrecondition, "", "Start the connection again under Integrations, in the browser in which you are signed in."},
	{ReasonConsentDenied, FailedPrecondition, "", "Start the connection again and press Grant access at Bitbucket."},
	{ReasonAppsWouldStop, FailedPrecondition, "", "Give the account access to these repositories on Bitbucket, connect another one, or connect it all the same: their apps stop deploying then."},
}

var byReason = func() map[Reason]Row {
	m := make(map[Reason]Row, len(reasons))
	for _, r := range Table() {
		m[r.Reason] = r
	}
	return m
}()

// Table is the one table: reason → kind → gRPC code → HTTP status → retry → remedy, in the order
// in which it is published in the OpenAPI document. The slice is the caller's.
func Table() []Row {
	rows := make([]Row, 0, len(reasons))
	for _, r := range reasons {
		k := kinds[r.kind]
		row := Row{Reason: r.reason, Kind: r.kind, Code: k.code, HTTPStatus: k.http, Retry: k.retry, Title: k.title, Remedy: r.remedy}
		if r.retry != "" {
			row.Retry = r.retry
		}
		rows = append(rows, row)
	}
	return rows
}

// Lookup returns the row of a reason; ok is false for a reason this version does not know.
func Lookup(r Reason) (row Row, ok bool) {
	row, ok = byReason[r]
	return row, ok
}
