// What the pictures of an app's deployments show.
import type { Delivery, Deployment } from "../api/client";
import { deploymentLook, type Look } from "./words";

/**
 * How long a push took to be live, in ms: from when its deployment was made to when its release was
 * switched to, before the hooks that run on the live release. Undefined for what was no push, for what
 * polling found (nobody knows when it was pushed), and for what did not end well.
 */
export function pushToLive(
  d: Pick<Deployment, "trigger" | "state" | "createTime" | "endTime" | "stages">,
): number | undefined {
  if (d.trigger !== "PUSH" || d.state !== "COMPLETED") return undefined;
  const live = d.stages.find((s) => s.stage === "RELEASE")?.endTime ?? d.endTime;
  if (d.createTime === undefined || live === undefined) return undefined;
  return Math.max(0, Date.parse(live) - Date.parse(d.createTime));
}

/** The middle one, or what lies halfway between the two in the middle. */
export function median(list: readonly number[]): number | undefined {
  const sorted = list.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  return upper === undefined || lower === undefined ? undefined : (lower + upper) / 2;
}

/** The first moments of the last days, the reader's own, oldest first; the last of them is today's. */
export function lastDays(now: Date, count: number): Date[] {
  return Array.from(
    { length: count },
    (_, i) => new Date(now.getFullYear(), now.getMonth(), now.getDate() - (count - 1 - i)),
  );
}

/** How often each look came on each of the days. What was before them or has no time is left out. */
export function byDay(
  days: readonly Date[],
  items: readonly { at: string | undefined; look: Look }[],
): Map<string, number>[] {
  const counts = days.map(() => new Map<string, number>());
  for (const { at, look } of items) {
    const time = at === undefined ? Number.NaN : Date.parse(at);
    const day = counts[days.findLastIndex((d) => d.getTime() <= time)];
    day?.set(look.word, (day.get(look.word) ?? 0) + 1);
  }
  return counts;
}

/** What a delivery led to in one app, at its worst: what each kind of bar is for. */
export const deliveryLooks = {
  deployed: { word: "Deployed", mark: "done", tone: "good" },
  underWay: { word: "Being deployed", mark: "running", tone: "busy" },
  nothing: { word: "Not deployed", mark: "skipped", tone: "idle" },
  failed: { word: "Failed", mark: "failed", tone: "bad" },
  refused: { word: "Refused", mark: "stopped", tone: "bad" },
} as const satisfies Record<string, Look>;

export function deliveryLook(d: Pick<Delivery, "refused" | "outcomes">, app: string): Look {
  if (d.refused) return deliveryLooks.refused;
  const own = d.outcomes.filter((o) => o.app === undefined || o.app === app);
  if (own.some((o) => o.kind === "FAILED" || o.deploymentState === "FAILED")) return deliveryLooks.failed;
  if (own.some((o) => o.kind === "DECIDING" || o.deploymentState === "PENDING")) return deliveryLooks.underWay;
  if (own.some((o) => o.kind === "DEPLOYMENT")) return deliveryLooks.deployed;
  return deliveryLooks.nothing;
}

/** The looks of deployments in the order in which they are piled up. */
export const deploymentLooks: readonly Look[] = [
  "COMPLETED",
  "PROCESSING",
  "PENDING",
  "SUPERSEDED",
  "CANCELLED",
  "FAILED",
].map(deploymentLook);
