// What a question "why did it not deploy?" can be about, and what the answer leads to.
import type { Explanation, ExplanationStep, Remedy } from "../api/client";
import type { Look } from "./words";

/** What can be asked about; the names are those of the page's address and of the API. */
export const whyAbout = [
  ["commit", "Commit", "a hash, or its beginning"],
  ["branch", "Branch", "its name"],
  ["delivery", "Delivery", "Bitbucket's request id, or webhook/number"],
  ["deployment", "Deployment", "its number; say the app too"],
] as const;

export type About = (typeof whyAbout)[number][0];

export interface Question {
  about: About;
  value: string;
  app: string;
}

/** The question that an address asks; undefined where it asks none. */
export function questionOf(params: URLSearchParams): Question | undefined {
  for (const [about] of whyAbout) {
    const value = params.get(about)?.trim() ?? "";
    if (value !== "") return { about, value, app: params.get("app")?.trim() ?? "" };
  }
  return undefined;
}

/** The address of a question's page. */
export function whyPath(ws: string, about: About, value: string | number, app?: string): string {
  const params = new URLSearchParams({ [about]: String(value) });
  if (app !== undefined && app !== "") params.set("app", app);
  return `/w/${ws}/why?${params.toString()}`;
}

/** An answer's first sentence, which is the headline, and what comes after it. */
export function opening(message: string): [first: string, more: string] {
  const end = /[.!?] (?=[A-Z])/.exec(message);
  return end === null ? [message, ""] : [message.slice(0, end.index + 1), message.slice(end.index + 2)];
}

/** Whether what was asked about is live in all apps that it concerns. */
export function everywhere(e: Explanation): boolean {
  return e.apps.length > 0 && e.apps.every((a) => a.live);
}

/** How an answer is framed: live as it should be, live or coming with something to know, or not live. */
export function tone(e: Explanation): "good" | "warn" | "bad" | "busy" {
  if (everywhere(e)) return e.reason === undefined ? "good" : "warn";
  return e.steps.some((s) => s.state === "WAITING") ? "busy" : "bad";
}

const links: Record<ExplanationStep["link"], string> = {
  PUSH: "Push",
  DELIVERY: "Delivery",
  VERDICT: "Answer to the delivery",
  DECISION: "Decision",
  RUN: "Deployment",
  STAGE: "Stage",
  LIVE: "Live",
  STATUS: "Status on Bitbucket",
};

export function linkWord(step: ExplanationStep): string {
  return links[step.link];
}

const states: Record<ExplanationStep["state"], Look> = {
  DONE: { word: "Done", mark: "done", tone: "good" },
  WAITING: { word: "On its way", mark: "waiting", tone: "busy" },
  MISSING: { word: "Missing", mark: "failed", tone: "bad" },
  SKIPPED: { word: "Not needed", mark: "skipped", tone: "idle" },
};

/** What it is called that a link is not there, where more can be said than that it is missing. */
const absent: Partial<Record<ExplanationStep["link"], string>> = {
  VERDICT: "Refused",
  DECISION: "Turned away",
  RUN: "Failed",
  STAGE: "Failed",
  LIVE: "Not live",
  STATUS: "Not sent",
};

export function stepLook(step: ExplanationStep): Look {
  const look = states[step.state];
  return step.state === "MISSING" ? { ...look, word: absent[step.link] ?? look.word } : look;
}

/** Where a remedy is that a person sees to on a page of its own; undefined for one that a button does at once. */
export function remedyPath(ws: string, r: Remedy): { to: string; word: string } | undefined {
  const app = `/w/${ws}/apps/${r.app ?? ""}`;
  switch (r.kind) {
    case "RECONNECT":
      return { to: `/w/${ws}/settings/integrations`, word: "Reconnect" };
    case "OPEN_INTEGRATION":
      return { to: `/w/${ws}/settings/integrations`, word: "Open Integrations" };
    case "EDIT_RULES":
      return { to: `${app}?tab=settings`, word: "Edit the rules" };
    case "OPEN_DEPLOYMENT":
      return { to: `${app}/deployments/${r.deployment ?? 0}`, word: `Open #${r.deployment ?? 0}` };
    case "ADD_WEBHOOK_BY_HAND":
      return r.app === undefined
        ? { to: `/w/${ws}/settings/integrations`, word: "Open Integrations" }
        : { to: app, word: "Add the webhook by hand" };
    case "CREATE_APP":
      return { to: `/w/${ws}/apps/new`, word: "New app" };
    default:
      return undefined;
  }
}

const actions: Partial<Record<Remedy["kind"], [word: string, busy: string]>> = {
  REGISTER_WEBHOOK: ["Register the webhook", "Registering…"],
  REPAIR_WEBHOOK: ["Repair the webhook", "Repairing…"],
  SWITCH_AUTO_DEPLOY_ON: ["Switch auto-deploy on", "Switching on…"],
  DEPLOY: ["Deploy latest", "Starting…"],
  REDEPLOY: ["Redeploy", "Starting…"],
  REPLAY_DELIVERY: ["Replay the delivery", "Replaying…"],
};

/** What a button says that does a remedy; undefined for a kind that this page does not know. */
export function actionWords(r: Remedy): [word: string, busy: string] | undefined {
  return actions[r.kind];
}
