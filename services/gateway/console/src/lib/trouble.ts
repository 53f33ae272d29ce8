// What is wrong for a whole workspace, not for one app.
import type { App, Integration } from "../api/client";
import { withinAbout } from "./deliveries";

export interface Trouble {
  tone: "warn" | "bad";
  title: string;
  text: string;
  action: string;
  to: (workspace: string) => string;
  /** The webhooks that Repair may put right. */
  webhooks?: string[];
}

/** Whether Bitbucket refused the last refresh, as against not answering it: connecting again may help. */
export function refused(i: Integration): boolean {
  const passing = ["BITBUCKET_UNAVAILABLE", "BITBUCKET_RATE_LIMITED"];
  return i.state === "REFRESH_FAILING" && i.lastError !== undefined && !passing.includes(i.lastError.reason ?? "");
}

const missingWebhooks = ["NOT_REGISTERED", "DRIFTED"];
const fine = ["HEALTH_UNSPECIFIED", "REGISTERED", "NOT_CHECKED"];

/** Whether pushes come without deliveries, as far as Devpilot knows. */
function withoutWebhook(a: App): boolean {
  if (!a.autoDeploy || a.webhook === undefined) return false;
  const { state, health } = a.webhook;
  return missingWebhooks.includes(state ?? "") || (health !== undefined && health !== "" && !fine.includes(health));
}

/** The most urgent trouble of a workspace; undefined where there is none. */
export function troubleOf(i: Integration | undefined, apps: App[]): Trouble | undefined {
  const integrations = (ws: string) => `/w/${ws}/settings/integrations`;
  const stay = "Apps and history stay, and what is live stays live.";
  if (i?.state === "RECONNECT_REQUIRED") {
    return {
      tone: "bad",
      title: "Bitbucket must be connected again.",
      text: `Pushes do not deploy until then. ${stay}`,
      action: "Reconnect",
      to: integrations,
    };
  }
  if (i?.state === "NOT_CONNECTED" && apps.length > 0) {
    return {
      tone: "bad",
      title: "Bitbucket is not connected.",
      text: `Nothing deploys until it is. ${stay}`,
      action: "Connect",
      to: integrations,
    };
  }
  if (i?.state === "REFRESH_FAILING") {
    return {
      tone: "warn",
      title: "Bitbucket does not renew the token for now.",
      text: i.lastError?.message ?? "",
      action: refused(i) ? "Reconnect" : "Open Integrations",
      to: integrations,
    };
  }
  const lost = lostAccess(i, apps);
  if (lost !== undefined) return { ...lost, to: integrations };
  return missedWebhooks(i, apps.filter(withoutWebhook));
}

/** Apps whose pushes no delivery tells of. Repair is offered for those webhooks that it may put right. */
function missedWebhooks(i: Integration | undefined, without: App[]): Trouble | undefined {
  const first = without[0];
  if (first === undefined) return undefined;
  const slowest = without
    .map((a) => a.webhook?.foundWithin ?? "")
    .sort((a, b) => (parseFloat(b) || 0) - (parseFloat(a) || 0))[0];
  const within = withinAbout(slowest);
  const found = `Their pushes are found by polling${within === "" ? "" : `, ${within}`}.`;
  const mendable = without.filter((a) => a.webhook?.repairable === true).map((a) => a.webhook?.id ?? "");
  const webhooks = [...new Set(mendable.filter((id) => id !== ""))];
  if (without.length === 1) {
    return {
      tone: "warn",
      title: `${first.id} has no working webhook.`,
      text:
        first.webhook?.healthMessage ??
        (first.webhook?.message === undefined ? found : `${first.webhook.message} ${found}`),
      webhooks,
      action: `Open ${first.id}`,
      to: (ws) => `/w/${ws}/apps/${first.id}`,
    };
  }
  const refused = without.filter(notAdminOf);
  const account = `The connected account ${i?.account?.label ?? ""}`.trim();
  const rest = without.length - refused.length;
  const whose = refused.length === 1 ? `the repository of ${few(refused)}` : `the repositories of ${few(refused)}`;
  const must = "An admin of them gives it that right on Bitbucket, or adds the webhooks by hand.";
  return {
    tone: "warn",
    title:
      refused.length > 1 && rest === 0
        ? `${account} is not an admin of the repositories of ${refused.length} apps: ${few(refused)}.`
        : `${without.length} apps have no working webhook: ${few(without)}.`,
    text:
      refused.length === 0
        ? `${found} Each app says why.`
        : rest === 0
          ? `${must} ${found}`
          : `${account} is not an admin of ${whose}. ${must} The other ${rest === 1 ? "app says" : "apps say"} why. ${found}`,
    webhooks,
    action: "Open Integrations",
    to: (ws) => `/w/${ws}/settings/integrations`,
  };
}

/** Whether the account may not look after the webhook of the app's repository. */
function notAdminOf(a: App): boolean {
  return a.webhook?.reason === "NOT_REPOSITORY_ADMIN" || a.webhook?.health === "NOT_ADMIN";
}

/** Several apps whose repositories cannot be had, in one sentence; a single app says it itself. */
function lostAccess(i: Integration | undefined, apps: App[]): Omit<Trouble, "to"> | undefined {
  const withAny = (reasons: string[]) => apps.filter((a) => a.warnings.some((w) => reasons.includes(w.reason)));
  const excluded = withAny(["BITBUCKET_WORKSPACE_EXCLUDED"]);
  const unreached = withAny(["REPOSITORY_NOT_FOUND", "ACCESS_RESTRICTED"]);
  if (unreached.length > 1) {
    return {
      tone: "bad",
      title: `The connected account ${i?.account?.label ?? ""} cannot reach the repositories of ${unreached.length} apps: ${few(unreached)}.`,
      text: "Nothing is deployed from them until the account has access again, or another one is connected.",
      action: "Open Integrations",
    };
  }
  if (excluded.length > 1) {
    return {
      tone: "warn",
      title: `${excluded.length} apps do not deploy, because an admin narrowed this workspace: ${few(excluded)}.`,
      text: "Tick their Bitbucket workspaces again to have them deploy; what is live stays live.",
      action: "Open Integrations",
    };
  }
  return undefined;
}

/** The first apps by name, and how many more there are. */
function few(apps: App[]): string {
  const names = apps.slice(0, 5).map((a) => a.id);
  const more = apps.length - names.length;
  return more > 0 ? `${names.join(", ")} and ${more} more` : names.join(", ");
}
