import { expect, test } from "vitest";
import { median, pushToLive } from "../src/lib/charts";

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
  expect(pushToLive({ trigger: "PUSH", state: "COMPLETED", stages: [] })).toBeUndefined();
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
