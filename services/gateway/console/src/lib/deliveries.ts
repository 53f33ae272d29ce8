import type { DeliveryFilter } from "../api/queries";
import { dayStart } from "./activity";

/** What came of a delivery in the end, as the API names it. */
export const results = [
  ["DEPLOYED", "Deployed"],
  ["FAILED", "Failed"],
  ["TURNED_AWAY", "Turned away"],
  ["PENDING", "Not ended yet"],
  ["STOPPED", "Cancelled or superseded"],
] as const;

/** What an address asks for. Days are the reader's, and "to" is included. What cannot be read asks for nothing. */
export function deliveryFilter(params: URLSearchParams): DeliveryFilter {
  const filter: DeliveryFilter = {};
  const branch = (params.get("branch") ?? "").trim();
  const commit = (params.get("commit") ?? "").trim();
  const outcome = results.find(([value]) => value === params.get("outcome"))?.[0];
  const after = dayStart(params.get("from") ?? "", 0);
  const before = dayStart(params.get("to") ?? "", 1);
  if (branch !== "") filter.branch = branch;
  if (commit !== "") filter.commit = commit;
  if (outcome !== undefined) filter.outcome = outcome;
  if (after !== undefined) filter.after = after;
  if (before !== undefined && (after === undefined || after < before)) filter.before = before;
  return filter;
}

const DAY = 24 * 3_600_000;

/** How long the bodies of deliveries are kept. */
export const bodyDays = 7;

/** Whether a delivery's body is past the time that bodies are kept. */
export function bodyGone(receiveTime: string | undefined, now: number): boolean {
  return receiveTime === undefined || now - Date.parse(receiveTime) > bodyDays * DAY;
}

/** How many deliveries may be replayed at a time. */
export const mostReplays = 50;

/** Why a range cannot be replayed; undefined when it can. */
export function rangeTrouble(first: number, last: number): string | undefined {
  if (!Number.isInteger(first) || !Number.isInteger(last) || first < 1) return "Deliveries are numbered from 1.";
  if (last < first) return "The last one is before the first.";
  if (last - first >= mostReplays) return `At most ${mostReplays} deliveries at a time.`;
  return undefined;
}

/** "Within about 2 minutes": how long a push is looked for whose delivery does not come. */
export function withinAbout(duration: string | undefined): string {
  const seconds = Number(/^([0-9]+(?:\.[0-9]+)?)s$/.exec(duration ?? "")?.[1]);
  if (Number.isNaN(seconds)) return "";
  if (seconds < 90) return `within about ${Math.max(1, Math.round(seconds))} seconds`;
  return `within about ${Math.round(seconds / 60)} minutes`;
}
