import { expect, test } from "vitest";
import { byDay, deliveryLook, deliveryLooks, lastDays, median, pushToLive } from "../src/lib/charts";

const push = {
  trigger: "PUSH",
  state: "COMPLETED",
  createTime: "2026-03-12T12:00:00Z",
  endTime: "2026-03-12T12:01:00Z",
  stages: [
    { stage: "SOURCE_CONTROL", endTime: "2026-03-12T12:00:05Z", hooks: [] },
    { stage: "RELEASE", endTime: "2026-03-12T12:00:08.5Z", hooks: [] },
    { stage: "POST_RELEASE", endTime: "2026-03-12T12:01:00Z", hooks: [] },
  ],
} as Parameters<typeof pushToLive>[0];

test("a push is live when its release is switched to, not when the last hook ends", () => {
  expect(pushToLive(push)).toBe(8500);
  expect(pushToLive({ ...push, stages: [] })).toBe(60_000);
});

test("only pushes that were told of and went live count", () => {
  for (const trigger of ["MANUAL", "REDEPLOY", "ROLLBACK", "RECONCILED"] as const)
    expect(pushToLive({ ...push, trigger })).toBeUndefined();
  for (const state of ["PENDING", "PROCESSING", "FAILED", "CANCELLED", "SUPERSEDED"] as const)
    expect(pushToLive({ ...push, state })).toBeUndefined();
  expect(pushToLive({ trigger: "PUSH", state: "COMPLETED", stages: [], createTime: push.createTime })).toBeUndefined();
});

test("clocks that disagree make no time below nought", () => {
  expect(pushToLive({ ...push, createTime: "2026-03-12T12:00:09Z" })).toBe(0);
});

test("the median is the middle one, or halfway between two", () => {
  expect(median([])).toBeUndefined();
  expect(median([7])).toBe(7);
  expect(median([30, 1, 2])).toBe(2);
  expect(median([40, 1, 2, 4])).toBe(3);
});

test("the last days are the reader's own, and each item counts on its day", () => {
  const days = lastDays(new Date(2026, 2, 2, 15, 30), 3);
  expect(days.map((d) => [d.getMonth(), d.getDate(), d.getHours()])).toEqual([
    [1, 28, 0],
    [2, 1, 0],
    [2, 2, 0],
  ]);
  const look = deliveryLooks.deployed;
  const at = (...when: [number, number, number, number]) => new Date(...when).toISOString();
  const counts = byDay(days, [
    { at: at(2026, 1, 27, 23), look },
    { at: at(2026, 1, 28, 0), look },
    { at: at(2026, 2, 2, 14), look },
    { at: at(2026, 2, 2, 15), look: deliveryLooks.failed },
    { at: undefined, look },
  ]);
  expect(counts.map((c) => Object.fromEntries(c))).toEqual([{ Deployed: 1 }, {}, { Deployed: 1, Failed: 1 }]);
});

test("a delivery is drawn by the worst that came of it in the app", () => {
  const look = (outcomes: object[], refused = false) =>
    deliveryLook({ refused, outcomes } as unknown as Parameters<typeof deliveryLook>[0], "web").word;
  const deployed = { app: "web", kind: "DEPLOYMENT", deploymentState: "COMPLETED" };
  expect(look([])).toBe("Not deployed");
  expect(look([{ app: "web", kind: "IGNORED" }])).toBe("Not deployed");
  expect(look([deployed])).toBe("Deployed");
  expect(look([deployed, { app: "docs", kind: "FAILED" }])).toBe("Deployed");
  expect(look([deployed, { app: "web", kind: "DECIDING" }])).toBe("Being deployed");
  expect(look([{ ...deployed, deploymentState: "PENDING" }])).toBe("Being deployed");
  expect(look([deployed, { ...deployed, deploymentState: "FAILED" }])).toBe("Failed");
  expect(look([deployed], true)).toBe("Refused");
});
