// What is wrong for a whole workspace, not for one app.
import type { AppsTrouble, Integration } from "../api/client";
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

/** The most urgent trouble of a workspace; undefined where there is none. */
export function troubleOf(i: Integration | undefined, apps: number, troubles: AppsTrouble[]): Trouble | undefined {
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
  if (i?.state === "NOT_CONNECTED" && apps > 0) {
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
  const lost = lostAccess(i, troubles);
  if (lost !== undefined) return { ...lost, to: integrations };
  const missed = missedWebhooks(
    i,
    troubles.find((t) => t.kind === "WEBHOOK"),
  );
  if (missed !== undefined || i?.warning === undefined) return missed;
  return {
    tone: "warn",
    title: "Who connected Bitbucket is no longer a member.",
    text: i.warning,
    action: "Open Integrations",
    to: integrations,
  };
}

/** Apps whose pushes no delivery tells of. Repair is offered for those webhooks that it may put right. */
function missedWebhooks(i: Integration | undefined, without: AppsTrouble | undefined): Trouble | undefined {
  const first = without?.first[0];
  if (without === undefined || first === undefined) return undefined;
  const { webhooks, notAdmin } = without;
  const within = withinAbout(without.foundWithin);
  const found = `Their pushes are found by polling${within === "" ? "" : `, ${within}`}.`;
  if (without.apps === 1) {
    const { healthMessage, message } = without.webhook ?? {};
    return {
      tone: "warn",
      title: `${first} has no working webhook.`,
      text: healthMessage ?? (message === undefined ? found : `${message} ${found}`),
      webhooks,
      action: `Open ${first}`,
      to: (ws) => `/w/${ws}/apps/${first}`,
    };
  }
  const account = `The connected account ${i?.account?.label ?? ""}`.trim();
  const rest = without.apps - notAdmin;
  const denied = few(notAdmin, without.firstNotAdmin);
  const whose = notAdmin === 1 ? `the repository of ${denied}` : `the repositories of ${denied}`;
  const must = "An admin of them gives it that right on Bitbucket, or adds the webhooks by hand.";
  return {
    tone: "warn",
    title:
      rest === 0
        ? `${account} is not an admin of the repositories of ${notAdmin} apps: ${denied}.`
        : `${without.apps} apps have no working webhook: ${few(without.apps, without.first)}.`,
    text:
      notAdmin === 0
        ? `${found} Each app says why.`
        : rest === 0
          ? `${must} ${found}`
          : `${account} is not an admin of ${whose}. ${must} The other ${rest === 1 ? "app says" : "apps say"} why. ${found}`,
    webhooks,
    action: "Open Integrations",
    to: (ws) => `/w/${ws}/settings/integrations`,
  };
}

/** Several apps whose repositories cannot be had, in one sentence; a single app says it itself. */
export function lostAccess(i: Integration | undefined, troubles: AppsTrouble[]): Omit<Trouble, "to"> | undefined {
  const several = (kind: AppsTrouble["kind"]) => troubles.find((t) => t.kind === kind && t.apps > 1);
  const unreached = several("REPOSITORY_UNREACHED");
  if (unreached !== undefined) {
    return {
      tone: "bad",
      title: `The connected account ${i?.account?.label ?? ""} cannot reach the repositories of ${unreached.apps} apps: ${few(unreached.apps, unreached.first)}.`,
      text: "Nothing is deployed from them until the account has access again, or another one is connected.",
      action: "Open Integrations",
    };
  }
  const excluded = several("WORKSPACE_EXCLUDED");
  if (excluded !== undefined) {
    return {
      tone: "warn",
      title: `${excluded.apps} apps do not deploy, because an admin narrowed this workspace: ${few(excluded.apps, excluded.first)}.`,
      text: "Tick their Bitbucket workspaces again to have them deploy; what is live stays live.",
      action: "Open Integrations",
    };
  }
  return undefined;
}

/** The first apps by name, and how many more there are. */
function few(apps: number, first: string[]): string {
  const more = apps - first.length;
  return more > 0 ? `${first.join(", ")} and ${more} more` : first.join(", ");
}
