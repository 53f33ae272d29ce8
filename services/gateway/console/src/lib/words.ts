// The API's words as sentences. Enums are open: unknown words are shown as they are, in lower case.
import type { App, Delivery, Deployment, HookRecord, Integration, Webhook } from "../api/client";
import { isPattern } from "./text";

export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

/** Shapes that tell a status, each with one meaning; `glyphs` stands for them where only text can be. */
export type Mark =
  | "done"
  | "failed"
  | "running"
  | "waiting"
  | "stopped"
  | "replaced"
  | "rolledBack"
  | "skipped"
  | "behind"
  | "none"
  | "off"
  | "unknown"
  | "on"
  | "alert"
  | "note";

const glyphs: Record<Mark, string> = {
  done: "✓",
  failed: "✕",
  running: "◐",
  waiting: "◌",
  stopped: "⊘",
  replaced: "↷",
  rolledBack: "↶",
  skipped: "»",
  behind: "↓",
  none: "○",
  off: "⊖",
  unknown: "?",
  on: "●",
  alert: "▲",
  note: "ℹ",
};

/** The shape as a character, for the page's title. */
export function glyph(look: Look): string {
  return glyphs[look.mark];
}

export interface Look {
  word: string;
  /** The shape beside the word: status is never told by colour alone. */
  mark: Mark;
  tone: Tone;
}

function unknown(word: string | undefined): Look {
  return { word: sentence(word ?? "unknown"), mark: "unknown", tone: "idle" };
}

/** "POST_SETUP" becomes "Post setup". */
export function sentence(word: string): string {
  const text = word.replace(/_/g, " ").toLowerCase();
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const deployments: Record<string, Look> = {
  PENDING: { word: "Waiting", mark: "waiting", tone: "idle" },
  PROCESSING: { word: "Deploying", mark: "running", tone: "busy" },
  COMPLETED: { word: "Completed", mark: "done", tone: "good" },
  FAILED: { word: "Failed", mark: "failed", tone: "bad" },
  CANCELLED: { word: "Cancelled", mark: "stopped", tone: "idle" },
  SUPERSEDED: { word: "Superseded", mark: "replaced", tone: "idle" },
};

export function deploymentLook(state: string | undefined): Look {
  return deployments[state ?? ""] ?? unknown(state);
}

/** What is served now. */
export const liveLook: Look = { word: "Live", mark: "on", tone: "good" };

export function ended(state: string | undefined): boolean {
  return state !== undefined && state !== "PENDING" && state !== "PROCESSING";
}

const underWay: Record<string, Look> = {
  DEPLOYING: { word: "Deploying", mark: "running", tone: "busy" },
  WAITING: { word: "Waiting", mark: "waiting", tone: "idle" },
  DECIDING: { word: "Being decided", mark: "running", tone: "busy" },
  DELIVERY_AWAITED: { word: "Pushed", mark: "waiting", tone: "busy" },
};

/** How an app's branch stands to what is live: one word for the list, the sentence is the service's. */
export function syncLook(sync: App["sync"]): Look {
  switch (sync?.state) {
    case "IN_SYNC":
      return { word: "In sync", mark: "done", tone: "good" };
    case "BEHIND": {
      if (sync.reason === "DEPLOYMENT_FAILED") return { word: "Failed", mark: "failed", tone: "bad" };
      return underWay[sync.reason ?? ""] ?? { word: "Behind", mark: "behind", tone: "warn" };
    }
    case "ROLLED_BACK":
      return { word: "Rolled back", mark: "rolledBack", tone: "warn" };
    case "CHOSEN":
      return { word: "Chosen", mark: "rolledBack", tone: "warn" };
    case "UNKNOWN":
      return { word: "Not known", mark: "unknown", tone: "idle" };
    default:
      return unknown(sync?.state);
  }
}

/** What apps are filtered by, most urgent first: in the address, for people, and as the API names it. */
export const needs = [
  ["failing", "Failing", "FAILING"],
  ["waiting", "Waiting", "WAITING"],
  ["behind", "Behind", "BEHIND"],
  ["deploying", "Deploying", "DEPLOYING"],
  ["rolled-back", "Rolled back", "ROLLED_BACK"],
  ["unknown", "Not known", "NOT_KNOWN"],
  ["in-sync", "In sync", "IN_SYNC"],
] as const;

/** How an app stands, in one word: its newest deployment where that is failing or under way, else its branch. */
export function appLook(a: Pick<App, "need" | "sync" | "latest" | "live">): Look {
  if (a.need === "FAILING" || a.need === "WAITING") return deploymentLook(a.latest?.state);
  if (a.need === "DEPLOYING" && a.latest?.state === "PROCESSING") return deploymentLook(a.latest.state);
  if (a.need === "NOT_KNOWN" && a.live === undefined && a.latest === undefined)
    return { word: "Not deployed", mark: "none", tone: "idle" };
  return syncLook(a.sync);
}

/** How far an app's branch is from what is live, short enough for a row; empty while nobody has counted. */
export function behindText(sync: App["sync"]): string {
  const branches = sync?.branches ?? 0;
  if (branches > 1) return `${branches} branches behind`;
  if (sync?.diverged === true) return "Diverged";
  const n = sync?.commits ?? 0;
  return n === 0 ? "" : `${n} ${n === 1 ? "commit" : "commits"} behind`;
}

/** The same as the end of a sentence about where the branch is. */
export function aheadText(sync: App["sync"]): string {
  if (sync?.diverged === true) return "which does not contain what is live";
  const n = sync?.commits ?? 0;
  return n === 0 ? "" : `${n} ${n === 1 ? "commit" : "commits"} ahead of what is live`;
}

/** Why an app's branch is not live, short enough for a row: of a failed hook its name and exit code. */
export function reasonText(a: Pick<App, "sync">): string {
  const said = a.sync?.state === "IN_SYNC" ? "" : (a.sync?.message ?? "");
  const failed = /^Deployment #\d+ of it failed: (.*)$/s.exec(said)?.[1] ?? said;
  return failed.replace(
    /^Hook "([^"]*)"(?: of [A-Z_]+)? failed: it ended with exit code (\d+)\.?$/,
    "Hook $1, exit $2",
  );
}

/** A sentence of the API that begins with its reader's own name, as it is said to them. */
export function asYou(sentence: string, me: string): string {
  return me !== "" && sentence.startsWith(`${me} `) ? `You ${sentence.slice(me.length + 1)}` : sentence;
}

const integrations: Record<string, Look> = {
  NOT_CONNECTED: { word: "Not connected", mark: "off", tone: "idle" },
  CONNECTED: { word: "Connected", mark: "on", tone: "good" },
  REFRESH_FAILING: { word: "Connected, token refresh is failing", mark: "alert", tone: "warn" },
  RECONNECT_REQUIRED: { word: "Must be connected again", mark: "alert", tone: "bad" },
};

export function integrationLook(state: Integration["state"]): Look {
  return integrations[state ?? ""] ?? unknown(state);
}

const webhooks: Record<string, Look> = {
  PENDING: { word: "Being registered", mark: "waiting", tone: "busy" },
  ACTIVE: { word: "Active", mark: "on", tone: "good" },
  MANUAL: { word: "Added by hand", mark: "on", tone: "good" },
  NOT_REGISTERED: { word: "Not registered", mark: "alert", tone: "warn" },
  DRIFTED: { word: "Changed on Bitbucket", mark: "alert", tone: "warn" },
  LEFT_ON_BITBUCKET: { word: "Left on Bitbucket", mark: "off", tone: "idle" },
  REMOVED: { word: "Removed", mark: "off", tone: "idle" },
};

export function webhookLook(state: Webhook["state"] | string | undefined): Look {
  return webhooks[state ?? ""] ?? unknown(state);
}

const healths: Record<string, Look> = {
  REGISTERED: { word: "Registered", mark: "on", tone: "good" },
  INACTIVE: { word: "Switched off on Bitbucket", mark: "alert", tone: "warn" },
  URL_CHANGED: { word: "URL changed", mark: "alert", tone: "warn" },
  EVENTS_CHANGED: { word: "Triggers changed", mark: "alert", tone: "warn" },
  SECRET_CHANGED: { word: "Secret changed", mark: "alert", tone: "warn" },
  DELETED: { word: "Deleted on Bitbucket", mark: "alert", tone: "warn" },
  NOT_ADMIN: { word: "Not an admin", mark: "alert", tone: "warn" },
  LIMIT_REACHED: { word: "Too many webhooks", mark: "alert", tone: "warn" },
  DELIVERIES_MISSING: { word: "Deliveries missing", mark: "alert", tone: "warn" },
  NOT_CHECKED: { word: "Not checked", mark: "none", tone: "idle" },
};

/** What is wrong with a webhook; its state where nothing is said. */
export function healthLook(w: Pick<Webhook, "health" | "state">): Look {
  if (w.health === undefined) return webhookLook(w.state);
  return healths[w.health] ?? unknown(w.health);
}

export const stages = [
  ["PRE_EXECUTION", "Before anything"],
  ["PRE_SOURCE_CONTROL", "Before fetching"],
  ["SOURCE_CONTROL", "Fetch and check out"],
  ["POST_SOURCE_CONTROL", "After fetching"],
  ["POST_SETUP", "After setup"],
  ["RELEASE", "Switch the release"],
  ["POST_RELEASE", "After release"],
] as const;

export function stageName(stage: string | undefined): string {
  return stages.find(([id]) => id === stage)?.[1] ?? sentence(stage ?? "");
}

/** Whether a deployment does without a stage: a rollback's release is there already, with all before it. */
export function notNeeded(d: Pick<Deployment, "trigger" | "stages">, stage: string): boolean {
  const at = stages.findIndex(([id]) => id === stage);
  const release = stages.findIndex(([id]) => id === "RELEASE");
  return d.trigger === "ROLLBACK" && at > 0 && at < release && !d.stages.some((s) => s.stage === stage);
}

/**
 * When the work of a deployment began: of its last attempt, for between two it waited. Before its first
 * stage it is when the deployment was taken up.
 */
export function workStart(d: Pick<Deployment, "stages" | "startTime">): string | undefined {
  return d.stages.find((s) => s.startTime !== undefined)?.startTime ?? d.startTime;
}

const of = (number: number | undefined) => (number === undefined || number === 0 ? "" : ` of #${number}`);

/** Who or what asked for a deployment: "Push by Jane Developer". */
export function triggerText(
  d: Pick<Deployment, "trigger" | "actor"> & { sourceNumber?: number; chosen?: boolean; tag?: string },
  me?: string,
): string {
  const label = d.actor?.label ?? "";
  const by = label === "" ? "" : ` by ${label === me ? "you" : label}`;
  switch (d.trigger) {
    case "PUSH":
      return `Push${by}`;
    case "MANUAL":
      return (d.chosen === true ? `Chosen ${d.tag === undefined ? "commit" : "tag"}` : "Deploy latest") + by;
    case "REDEPLOY":
      return `Redeploy${of(d.sourceNumber)}${by}`;
    case "ROLLBACK":
      return `Rollback${d.sourceNumber === undefined ? "" : ` to #${d.sourceNumber}`}${by}`;
    case "RECONCILED":
      return "Found by polling: no delivery told of it";
    case "MOVED":
      return `Moved to another server${d.sourceNumber === undefined ? "" : `: #${d.sourceNumber} again`}`;
    default:
      return sentence(d.trigger ?? "unknown") + by;
  }
}

export const triggerWords: Record<string, string> = {
  PUSH: "Push",
  MANUAL: "Deploy latest",
  REDEPLOY: "Redeploy",
  ROLLBACK: "Rollback",
  RECONCILED: "Found by polling",
  MOVED: "Moved to another server",
};

const hookLooks: Record<string, Look> = {
  PENDING: { word: "waiting", mark: "waiting", tone: "idle" },
  RUNNING: { word: "running", mark: "running", tone: "busy" },
  COMPLETED: { word: "done", mark: "done", tone: "good" },
  FAILED: { word: "failed", mark: "failed", tone: "bad" },
  SKIPPED: { word: "skipped", mark: "skipped", tone: "idle" },
  TIMED_OUT: { word: "ran out of time", mark: "failed", tone: "bad" },
  CANCELLED: { word: "cancelled", mark: "stopped", tone: "idle" },
};

export function hookLook(state: HookRecord["state"] | undefined): Look {
  return hookLooks[state ?? ""] ?? unknown(state);
}

/** The deployment hook that made a deployment fail, with its stage. */
export function failedHook(d: Pick<Deployment, "stages">): { hook: HookRecord; stage: string } | undefined {
  for (const s of d.stages) {
    const hook = s.hooks.find((h) => h.state === "FAILED" || h.state === "TIMED_OUT");
    if (hook !== undefined) return { hook, stage: s.stage ?? "" };
  }
  return undefined;
}

/** Why a deployment failed, in a line: "Hook build, exit 3". Empty where it did not. */
export function failureText(d: Pick<Deployment, "state" | "stage" | "stages" | "error">): string {
  if (d.state !== "FAILED") return "";
  const failed = failedHook(d);
  if (failed !== undefined) {
    const how =
      failed.hook.state === "TIMED_OUT"
        ? "ran out of time"
        : failed.hook.exitCode === undefined
          ? "failed"
          : `exit ${failed.hook.exitCode}`;
    return `Hook ${failed.hook.name}, ${how}`;
  }
  // The first sentence; what to do about it stands on the deployment's page.
  const said = d.error?.message ?? "";
  return /^.*?[.!?](?=\s|$)/s.exec(said)?.[0] ?? (said === "" ? `At: ${stageName(d.stage)}` : said);
}

export interface OutcomeText {
  text: string;
  tone: Tone;
  deployment?: number;
}

/** What came of a delivery, in words, one per change. */
export function outcomeTexts(d: Delivery, app: string): OutcomeText[] {
  if (d.refused) return [{ text: d.answerMessage || "Signature did not match: is the secret right?", tone: "bad" }];
  if (d.outcomes.length === 0) {
    if (d.eventKey !== "repo:push" && d.found === undefined)
      return [{ text: d.answerMessage || "Understood; there is nothing to do", tone: "idle" }];
    if (d.changes.length === 0)
      return [{ text: "The delivery named no branch; Devpilot compares the heads itself", tone: "idle" }];
    return [{ text: "Not decided yet", tone: "busy" }];
  }
  return d.outcomes.map((o) => {
    if (o.kind === "DEPLOYMENT") {
      const name = `#${o.deployment}${o.app !== undefined && o.app !== app ? ` of ${o.app}` : ""}`;
      const look = deploymentOutcomes[o.deploymentState ?? ""] ?? { text: "Deployed as", tone: "good" };
      return { ...look, text: `${look.text} ${name}`, deployment: o.deployment };
    }
    const text = o.message ?? outcomeReasons[o.reason ?? ""] ?? sentence(o.reason ?? "");
    return { text, tone: o.kind === "FAILED" ? "bad" : o.kind === "DECIDING" ? "busy" : "idle" };
  });
}

/** How a deployment that came of a delivery stands; an outcome from before that was kept says nothing. */
const deploymentOutcomes: Record<string, { text: string; tone: Tone }> = {
  PENDING: { text: "Being deployed as", tone: "busy" },
  COMPLETED: { text: "Deployed as", tone: "good" },
  FAILED: { text: "Failed as", tone: "bad" },
  CANCELLED: { text: "Cancelled as", tone: "idle" },
  SUPERSEDED: { text: "Superseded as", tone: "idle" },
};

const outcomeReasons: Record<string, string> = {
  BRANCH_NOT_WATCHED: "No app watches the branch",
  AUTO_DEPLOY_OFF: "Auto-deploy is off",
  BRANCH_DELETED: "The branch was deleted; the live release stays",
  SEEN_BEFORE: "Already seen: it changed nothing",
};

/** "main, dev +3" for the list of deliveries. */
export function branchesText(d: Delivery): string {
  const names = d.changes.map((c) => (c.refType === "TAG" ? `tag ${c.ref}` : c.ref));
  const shown = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${shown} +${names.length - 3}` : shown;
}

export const scopeReasons: Record<string, string> = {
  repository: "read code, branches and metadata for deployments",
  account: "read the account's details to label the integration",
  webhook: "register webhooks so that pushes deploy",
};

/** The warning that Bitbucket is not told of deployments: a matter of the installation, said at the option it is about. */
export const statusNotSent = "STATUS_NOT_SENT";

/** "main", or "a branch that matches release/*": where pushes go that deploy. */
export function watched(branch: string): string {
  return isPattern(branch) ? `a branch that matches ${branch}` : branch;
}

/** Why Devpilot cannot register the webhook itself; without a full stop, for more to follow. */
export function notAdmin(repository: string): string {
  return `The connected account is not an admin of ${repository}`;
}
