// What to do about a reason: one next step, with a place to go where there is one.

export interface Remedy {
  text: string;
  action?: { label: string; to: (workspace: string) => string };
}

const integrations = { label: "Open Integrations", to: (ws: string) => `/w/${ws}/settings/integrations` };
const apps = { label: "See all apps", to: (ws: string) => `/w/${ws}/apps` };

const remedies: Record<string, Remedy> = {
  NOT_CONNECTED: { text: "An owner or admin connects Bitbucket under Integrations.", action: integrations },
  TOKEN_EXPIRED: {
    text: "Try again in a moment, or press Refresh Token under Integrations.",
    action: integrations,
  },
  RECONNECT_REQUIRED: {
    text: "An owner or admin connects Bitbucket again. Apps and history stay.",
    action: integrations,
  },
  SCOPE_MISSING: {
    text: "Tick the missing permission in the OAuth consumer on Bitbucket, then connect again.",
    action: integrations,
  },
  CONSUMER_REFUSED: {
    text: "The operator compares the OAuth consumer's key and secret on Bitbucket with Devpilot's settings.",
    action: integrations,
  },
  CONSENT_DENIED: {
    text: "Nothing was changed. Press Connect again when you are ready, and Grant access on Bitbucket's page.",
  },
  APPS_WOULD_STOP: {
    text: "Give the account access to these repositories on Bitbucket, connect another one, or connect it all the same: their apps stop deploying then.",
  },
  HANDSHAKE_EXPIRED: { text: "A connection must be finished within 10 minutes. Press Connect to start again." },
  HANDSHAKE_MISMATCH: {
    text: "The answer came back to another browser or person than the one who began. Press Connect here, and finish in this browser.",
  },
  NOT_REPOSITORY_ADMIN: {
    text: "Make the connected account an admin of the repository, or add the webhook by hand with the URL and secret shown.",
  },
  ACCESS_RESTRICTED: {
    text: "On Bitbucket, allow this server's address in the IP allow-list, or switch on two-step verification for the connected account.",
  },
  ACCESS_REFUSED: {
    text: "The connection itself is fine. If this stays, check on Bitbucket that the connected account may still read the repository.",
  },
  WEBHOOK_REFUSED: {
    text: "Add the webhook by hand with the URL and secret shown; the message says what Bitbucket had against it.",
  },
  WEBHOOK_LIMIT_REACHED: {
    text: "Delete a webhook that is no longer needed from the repository on Bitbucket, then press Register.",
  },
  NO_PUBLIC_URL: {
    text: "Bitbucket cannot reach this address. Until the operator sets a public one, Devpilot asks Bitbucket for new commits at intervals.",
  },
  BITBUCKET_RATE_LIMITED: {
    text: "Bitbucket limits calls per hour. Devpilot goes on by itself as soon as it may.",
  },
  BITBUCKET_UNAVAILABLE: {
    text: "Bitbucket does not answer as it should. Try again in a moment; its status page says more.",
  },
  BRANCH_NOT_FOUND: { text: "Push the branch, or choose another one in the app's settings." },
  REPOSITORY_NOT_FOUND: {
    text: "The repository was deleted or moved, or the connected account lost access to it.",
    action: integrations,
  },
  APP_NOT_FOUND: { text: "It may have been deleted or renamed.", action: apps },
  DEPLOYMENT_NOT_FOUND: { text: "Check its number in the app's history.", action: apps },
  WORKSPACE_NOT_FOUND: { text: "Check the address, or ask a member to add you." },
  ETAG_MISMATCH: { text: "Somebody changed it meanwhile. Look at what is there now, then repeat your change." },
  PERMISSION_DENIED: { text: "Ask an owner or admin of the workspace to do it, or to raise your role." },
  RATE_LIMITED: { text: "Wait a moment, then try again." },
  STORAGE_UNAVAILABLE: {
    text: "Devpilot's store does not answer. Try again in a moment; if it stays, tell the operator.",
  },
  SERVICE_UNAVAILABLE: {
    text: "A part of Devpilot is starting or stopped. Try again in a moment; if it stays, tell the operator.",
  },
  TIMEOUT: { text: "It took too long. Try again; if it stays, tell the operator." },
  OFFLINE: { text: "Check your connection. This page goes on by itself when Devpilot answers." },
  INTERNAL: { text: "Try again; if it stays, give the operator the request id." },
  SERVER_OFFLINE: {
    text: "The operator can start a worker of the server, after which the deployment goes on by itself, or move the app to another server.",
  },
  SERVER_DIED: { text: "Open the deployment: it says how far it is. If it failed, press Redeploy." },
  SERVER_UNKNOWN: { text: "Choose one of the known servers in the app's settings." },
  BITBUCKET_WORKSPACE_EXCLUDED: {
    text: "An owner or admin can add the Bitbucket workspace to those that this workspace is narrowed to.",
    action: integrations,
  },
  WEBHOOK_DEACTIVATED: {
    text: "If that was not meant, press Repair: Devpilot switches the webhook on again. Until then pushes are found by polling.",
  },
  WEBHOOK_IN_USE: {
    text: "Switch auto-deploy off in the apps that use the webhook; it is then removed from Bitbucket by itself.",
  },
  WEBHOOK_NOT_NEEDED: { text: "Switch auto-deploy on in an app of the repository first." },
  WEBHOOK_NOT_FOUND: { text: "It may have been removed. See which webhooks there are.", action: integrations },
  DELIVERY_NOT_FOUND: { text: "Look for it in the app's deliveries. Old ones are removed." },
  APP_EXISTS: { text: "Choose another name, or change the app that is there.", action: apps },
  WORKSPACE_EXISTS: { text: "Choose another name for the workspace." },
  WORKSPACE_BEING_DELETED: { text: "An owner deletes this workspace, and all that is in it. Use another one." },
  MEMBER_MANAGED: {
    text: "Change the person's groups at the identity provider, or the rules in --identity-providers-file.",
  },
  LAST_OWNER: { text: "Make somebody else an owner of the workspace first." },
  TEAM_FULL: { text: "Remove members or withdraw invitations that are not needed any more." },
  INVITATION_NOT_FOUND: {
    text: "Check the list of invitations; it may have been accepted or withdrawn, or have expired.",
  },
  INVITATION_INVALID: {
    text: "Ask whoever invited you for a new invitation, to the e-mail address that your provider has verified.",
  },
  SESSION_NOT_FOUND: { text: "Check the list of sessions; it may have ended." },
  SIGN_IN_FAILED: {
    text: "Sign in again. If it stays, the operator finds the cause in the log by the request's id.",
  },
  NOT_A_MEMBER: {
    text: "Ask an owner of a workspace for an invitation, or to be added to one of the groups that are let in.",
  },
  IDENTITY_PROVIDER_UNAVAILABLE: {
    text: "Try again in a moment; if it stays, the operator should check that Devpilot reaches the identity provider.",
  },
  MEMBER_NOT_FOUND: { text: "Look at who is a member of the workspace; this one may have left." },
  API_KEY_NOT_FOUND: { text: "Look at the list of API keys; this one may have been removed." },
  LOGIN_REQUEST_NOT_FOUND: { text: "Run devpilot login again." },
  LOGIN_REQUEST_ANSWERED: { text: "Run devpilot login again." },
  NOTIFICATION_TARGET_NOT_FOUND: { text: "Look at the list of notifications; this one may have been removed." },
  RELEASE_GONE: { text: "Redeploy the commit: the release itself was removed to make room for newer ones." },
  NOT_CANCELLABLE: { text: "There is nothing to do: the deployment has ended, or is just being made live." },
  NOT_REDEPLOYABLE: { text: "Press Deploy latest: this deployment ended before it had a commit." },
  UNAUTHENTICATED: { text: "Sign in again." },
  BROWSER_REQUIRED: { text: "An owner or admin does it here, signed in with a browser." },
  CROSS_ORIGIN_REFUSED: { text: "Open Devpilot at its own address, and do it there." },
  HOST_UNKNOWN: { text: "Open Devpilot at its public address. If this is it, the operator corrects the setting." },
  INVALID_ARGUMENT: { text: "Correct what is named, and send it again." },
  PAGE_TOKEN_INVALID: { text: "Start again at the first page." },
  REQUEST_ID_REUSED: { text: "Reload the page and do it again." },
  PAYLOAD_TOO_LARGE: { text: "Send less at a time." },
  UNSUPPORTED_MEDIA_TYPE: { text: "Reload the page: Devpilot may have been updated." },
  NOT_FOUND: { text: "Check the address, or reload the page: Devpilot may have been updated." },
  METHOD_NOT_ALLOWED: { text: "Reload the page: Devpilot may have been updated." },
  UNIMPLEMENTED: { text: "The operator updates Devpilot: a part of it does not know this yet." },
  CANCELED: { text: "Do it again if you still want it." },
  HOOK_FAILED: {
    text: "Read the last lines of the log: they are the deployment hook's own words. Mend it, push, and Devpilot deploys again.",
  },
  HOOK_TIMED_OUT: {
    text: "Make the deployment hook quicker, or give it more time in the app's settings; then press Deploy latest.",
  },
  CODE_CONFIG_INVALID: {
    text: "Correct the file at the line and column named, and push. Or switch configuration as code off in the app's settings.",
  },
  GIT_FAILED: { text: "The log holds git's own words. If Bitbucket was in trouble, press Deploy latest." },
  TREE_REFUSED: {
    text: "The commit holds paths that must not be checked out; the log names them. Remove them and push.",
  },
  SUBMODULE_REFUSED: {
    text: "If you trust whoever can push, an owner or admin names the other workspace in the app's settings, under Options; then press Deploy latest.",
  },
  DIRECTORY_NOT_FOUND: { text: "Push the directory, or name another one in the app's settings, under Options." },
  TAG_NOT_FOUND: { text: "Choose another tag, or push this one first." },
  COMMIT_NOT_FOUND: { text: "Check the hash, or push the commit first." },
  COMMIT_AMBIGUOUS: { text: "Give more digits of the hash, best all 40." },
  COMMIT_NOT_IN_BRANCH: { text: "Choose a commit that the branch has, or a tag that points to it." },
  COMMIT_GONE: {
    text: "Press Deploy latest for the commit that the branch has now.",
  },
  NO_HOOK_RUNNER: { text: "The message says what the server lacks. The operator adds it; then press Deploy latest." },
  REPOSITORY_TOO_LARGE: {
    text: "Remove large files from the repository's history, or have the operator raise the limit.",
  },
  DISK_FULL: { text: "The operator frees space on the server; then press Deploy latest." },
  RELEASE_FAILED: { text: "The release before is still live. The log says why." },
  RELEASE_LOCKED: { text: "Another worker held the server's releases. Press Deploy latest." },
  WORKER_DIED: {
    text: "The operator's logs say why the worker stopped; then press Deploy latest.",
  },
};

/** The remedy for a reason; an unknown one has at least something to do. */
export function remedyFor(reason: string | undefined): Remedy {
  return remedies[reason ?? ""] ?? { text: "Try again; if it stays, give the operator the request id." };
}

export function knownReason(reason: string | undefined): boolean {
  return reason !== undefined && reason in remedies;
}

/** What the integrations page says after a connect came back: the query is anybody's, our words are not. */
/** Which apps the account would stop, as the way back from Bitbucket tells it. */
function wouldStop(query: URLSearchParams): string {
  const apps = (query.get("apps") ?? "").split(" ").filter((a) => /^[a-z0-9-]{1,63}$/.test(a));
  const more = Number(query.get("appsCount") ?? 0) - apps.length;
  const unknown = Number(query.get("repositoriesUnknown") ?? 0);
  const named = more > 0 ? `${apps.join(", ")} and ${more} more apps` : apps.join(", ");
  return [
    "Nothing was changed.",
    ...(apps.length === 0
      ? []
      : [`The account cannot reach the repositories of ${named}, which would stop deploying.`]),
    ...(unknown > 0 ? [`Whether it reaches ${unknown} further repositories was not looked at.`] : []),
  ].join(" ");
}

export function connectResult(
  query: URLSearchParams,
): { tone: "good" | "warn" | "bad"; title: string; text: string; stopping?: boolean } | undefined {
  switch (query.get("bitbucket")) {
    case "connected":
      return {
        tone: "good",
        title: "Bitbucket is connected.",
        text: "The deployment form now offers every repository that the account can reach.",
      };
    case "failed": {
      const reason = query.get("reason") ?? "";
      if (reason === "APPS_WOULD_STOP")
        return { tone: "warn", title: wouldStop(query), text: remedyFor(reason).text, stopping: true };
      const title =
        {
          CONSENT_DENIED: "You cancelled on Bitbucket, so nothing was connected.",
          HANDSHAKE_EXPIRED: "The connection took too long, so nothing was connected.",
          HANDSHAKE_MISMATCH: "The connection was finished by another browser or person than the one who began it.",
          SCOPE_MISSING: "Bitbucket granted less than Devpilot needs, so nothing was connected.",
          CONSUMER_REFUSED: "Bitbucket refused Devpilot's OAuth consumer.",
          BITBUCKET_UNAVAILABLE: "Bitbucket did not answer, so nothing was connected.",
        }[reason] ?? "Bitbucket could not be connected.";
      return { tone: reason === "CONSENT_DENIED" ? "warn" : "bad", title, text: remedyFor(reason).text };
    }
    default:
      return undefined;
  }
}
