import type { ActivityFilter } from "../api/queries";

/** The kinds of actions, as the API names them, and a person. */
export const actionKinds = [
  ["app", "Apps"],
  ["deployment", "Deployments"],
  ["integration", "Bitbucket integration"],
  ["webhook", "Webhooks"],
  ["delivery", "Deliveries"],
  ["notificationTarget", "Notifications"],
  ["apiKey", "API keys"],
  ["member", "Members"],
  ["invitation", "Invitations"],
  ["session", "Sign-ins"],
  ["workspace", "Workspace"],
] as const;

/**
 * What an address of the page asks for. Days are the reader's: "to" is included, so the list ends where
 * the next day begins. What cannot be read asks for nothing.
 */
export function activityFilter(params: URLSearchParams): ActivityFilter {
  const filter: ActivityFilter = {};
  const actor = (params.get("who") ?? "").trim().slice(0, 200);
  const action = actionKinds.find(([kind]) => kind === params.get("kind"))?.[0];
  const app = (params.get("app") ?? "").trim().slice(0, 100);
  const after = dayStart(params.get("from") ?? "", 0);
  const before = dayStart(params.get("to") ?? "", 1);
  if (actor !== "") filter.actor = actor;
  if (action !== undefined) filter.action = action;
  if (app !== "") filter.app = app;
  if (after !== undefined) filter.after = after;
  if (before !== undefined && (after === undefined || after < before)) filter.before = before;
  return filter;
}

/** The address of the list as a file. */
export function exportAddress(workspace: string, filter: ActivityFilter, format: "csv" | "jsonl"): string {
  const query = new URLSearchParams({ format, ...filter });
  return `/v1/workspaces/${encodeURIComponent(workspace)}/activity:export?${query.toString()}`;
}

const ofWebhook = /^webhooks\/([^/]+)(\/deliveries\/(\d+))?$/;

/** The webhook that an entry was done to, by its id. */
export function webhookOf(resource: string | undefined): string | undefined {
  return ofWebhook.exec(resource ?? "")?.[1];
}

/**
 * The page of the console about what an entry was done to; undefined where there is none. A webhook and its
 * deliveries are shown with an app that uses it.
 */
export function activityPage(workspace: string, resource: string | undefined, app?: string | null): string | undefined {
  const w = `/w/${encodeURIComponent(workspace)}`;
  const at = resource ?? "";
  if (/^apps\/[^/]+(\/deployments\/\d+)?$/.test(at)) return `${w}/${at}`;
  const hook = ofWebhook.exec(at);
  if (hook !== null && app)
    return hook[3] === undefined ? `${w}/apps/${app}` : `${w}/why?delivery=${hook[3]}&app=${app}`;
  if (at === "integrations/bitbucket" || hook !== null) return `${w}/settings/integrations`;
  if (at === "members") return `${w}/settings/members`;
  if (at.startsWith("notificationTargets/")) return `${w}/settings/notifications`;
  return undefined;
}

/** Entries by the reader's day, in the order in which they come. */
export function byDay<T extends { time?: string }>(entries: T[]): { day: string; entries: T[] }[] {
  const days: { day: string; entries: T[] }[] = [];
  for (const e of entries) {
    const day = dayOf(e.time);
    const last = days.at(-1);
    if (last?.day === day) last.entries.push(e);
    else days.push({ day, entries: [e] });
  }
  return days;
}

function dayOf(time: string | undefined): string {
  const t = new Date(time ?? "");
  const two = (n: number) => String(n).padStart(2, "0");
  return Number.isNaN(t.getTime()) ? "" : `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
}

/** A day as its heading: today and yesterday by name. */
export function dayName(day: string, now: Date): string {
  const [year, month, date] = day.split("-").map(Number);
  const t = new Date(year ?? 0, (month ?? 1) - 1, date);
  if (day === dayOf(now.toISOString())) return "Today";
  if (day === dayOf(new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1).toISOString())) return "Yesterday";
  const part = (of: Intl.DateTimeFormatOptions) => t.toLocaleDateString("en-GB", of);
  return `${part({ weekday: "long" })} ${part({ day: "numeric", month: "long", year: "numeric" })}`;
}

/** A value before or after a change, as a person reads it. */
export function inWords(value: string | undefined): string {
  if (value === undefined || value === "" || value === '""') return "not set";
  if (value === "true") return "on";
  if (value === "false") return "off";
  try {
    const v: unknown = JSON.parse(value);
    if (typeof v === "string" || typeof v === "number") return String(v);
    if (Array.isArray(v) && v.every((e) => typeof e === "string" || typeof e === "number")) return v.join(", ");
  } catch {
    // cut after 500 characters
  }
  return value;
}

/** Whether a value is made of parts with names, such as a list of hooks. */
export function hasParts(value: string | undefined): boolean {
  return /^\[?\{/.test(value ?? "");
}

/** The beginning of a day of the reader's, or of the so many days later; undefined for what is no day. */
export function dayStart(day: string, later: number): string | undefined {
  const parts = /^(\d{4})-(\d{2})-(\d{2})$/.exec(day);
  if (parts === null) return undefined;
  const start = new Date(Number(parts[1]), Number(parts[2]) - 1, Number(parts[3]) + later);
  return Number.isNaN(start.getTime()) ? undefined : start.toISOString();
}
