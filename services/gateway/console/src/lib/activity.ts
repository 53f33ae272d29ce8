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

/** The beginning of a day of the reader's, or of the so many days later; undefined for what is no day. */
export function dayStart(day: string, later: number): string | undefined {
  const parts = /^(\d{4})-(\d{2})-(\d{2})$/.exec(day);
  if (parts === null) return undefined;
  const start = new Date(Number(parts[1]), Number(parts[2]) - 1, Number(parts[3]) + later);
  return Number.isNaN(start.getTime()) ? undefined : start.toISOString();
}
