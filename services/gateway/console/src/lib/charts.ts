// What the pictures of an app's deployments show.
import type { Deployment } from "../api/client";

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
