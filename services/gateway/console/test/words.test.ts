import { expect, test } from "vitest";
import type { Delivery } from "../src/api/client";
import { asYou, failureText, notNeeded, outcomeTexts, workStart } from "../src/lib/words";

type Failed = Parameters<typeof failureText>[0];
const failed = (over: object): Failed => ({ state: "FAILED", stage: "POST_SETUP", stages: [], ...over }) as Failed;
const hook = (over: object) =>
  failed({ stages: [{ stage: "POST_SETUP", hooks: [{ name: "build", state: "FAILED", ...over }] }] });

test("why a deployment failed fits in a line", () => {
  expect(failureText(hook({ exitCode: 3 }))).toBe("Hook build, exit 3");
  expect(failureText(hook({ state: "TIMED_OUT" }))).toBe("Hook build, ran out of time");
  expect(failureText(hook({}))).toBe("Hook build, failed");
  expect(failureText(failed({ error: { reason: "X", message: "acme/web is not there. Look at its name." } }))).toBe(
    "acme/web is not there.",
  );
  expect(failureText(failed({ error: { reason: "X", message: "see v1.2.3 of it" } }))).toBe("see v1.2.3 of it");
  expect(failureText(failed({}))).toBe("At: After setup");
  expect(failureText({ ...hook({ exitCode: 3 }), state: "COMPLETED" })).toBe("");
});

test("a push that is being decided about is under way, not turned away", () => {
  const delivery = (kind: string) =>
    ({
      outcomes: [{ app: "web", kind, message: "said", reason: kind }],
      changes: [{}],
      eventKey: "repo:push",
    }) as unknown as Delivery;
  expect(outcomeTexts(delivery("DECIDING"), "web")).toEqual([{ text: "said", tone: "busy" }]);
  expect(outcomeTexts(delivery("IGNORED"), "web")).toEqual([{ text: "said", tone: "idle" }]);
  expect(outcomeTexts(delivery("FAILED"), "web")).toEqual([{ text: "said", tone: "bad" }]);
});

test("of a rollback the stages that bring a source are not needed", () => {
  const d = (trigger: string, stages: string[] = ["PRE_EXECUTION", "RELEASE"]) =>
    ({ trigger, stages: stages.map((stage) => ({ stage, hooks: [] })) }) as unknown as Parameters<typeof notNeeded>[0];
  expect(notNeeded(d("ROLLBACK"), "SOURCE_CONTROL")).toBe(true);
  expect(notNeeded(d("ROLLBACK"), "POST_SETUP")).toBe(true);
  expect(notNeeded(d("ROLLBACK"), "POST_RELEASE")).toBe(false);
  expect(notNeeded(d("PUSH"), "SOURCE_CONTROL")).toBe(false);
});

test("what a deployment waited between two attempts is no part of how long it took", () => {
  const d = (over: object) => ({ startTime: "2026-11-28T10:00:00Z", stages: [], ...over }) as never;
  expect(workStart(d({}))).toBe("2026-11-28T10:00:00Z");
  expect(workStart(d({ stages: [{ hooks: [] }, { startTime: "2026-11-28T10:30:00Z" }] }))).toBe("2026-11-28T10:30:00Z");
});

test("a reader's own doing is told to them as theirs, and nobody else's is", () => {
  expect(asYou("Ann made d848966 live again.", "Ann")).toBe("You made d848966 live again.");
  expect(asYou("Annabel made d848966 live again.", "Ann")).toBe("Annabel made d848966 live again.");
  expect(asYou("Auto-deploy is off: Ann switched it off.", "Ann")).toBe("Auto-deploy is off: Ann switched it off.");
  expect(asYou("Ann made d848966 live again.", "")).toBe("Ann made d848966 live again.");
});
