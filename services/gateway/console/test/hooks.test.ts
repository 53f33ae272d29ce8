import { describe, expect, test } from "vitest";
import type { DeploymentHook } from "../src/api/client";
import { byStage, hookProblem, move, remove, replace } from "../src/lib/hooks";

const hook = (name: string, stage: DeploymentHook["stage"], priority = 0): DeploymentHook => ({
  name,
  stage,
  priority,
  command: `echo ${name}`,
  timeoutSeconds: 60,
  active: true,
});
const names = (hooks: readonly DeploymentHook[]) => hooks.map((h) => h.name);

const list = [
  hook("notify", "POST_RELEASE"),
  hook("test", "POST_SOURCE_CONTROL", 5),
  hook("build", "POST_SOURCE_CONTROL", 1),
  hook("check", "POST_SOURCE_CONTROL", 5),
];

describe("the list of hooks", () => {
  test("is shown as it runs: by stage, priority, place", () =>
    expect(names(byStage(list))).toEqual(["build", "test", "check", "notify"]));

  test("moves within a stage and keeps the order that priorities gave", () => {
    const moved = move(list, "check", -1);
    expect(names(byStage(moved))).toEqual(["build", "check", "test", "notify"]);
    expect(names(byStage(move(moved, "build", 1)))).toEqual(["check", "build", "test", "notify"]);
  });

  test.each([
    ["build", -1],
    ["check", 1],
    ["notify", 1],
    ["nobody", 1],
  ] as const)("does not move %s by %i out of its stage", (name, by) =>
    expect(names(byStage(move(list, name, by)))).toEqual(["build", "test", "check", "notify"]),
  );

  test("takes a changed hook in its place, and a new one last in its stage", () => {
    expect(names(byStage(replace(list, "build", { ...hook("compile", "POST_SOURCE_CONTROL", 1) })))).toEqual([
      "compile",
      "test",
      "check",
      "notify",
    ]);
    expect(names(byStage(replace(list, undefined, hook("lint", "POST_SOURCE_CONTROL"))))).toEqual([
      "build",
      "test",
      "check",
      "lint",
      "notify",
    ]);
    expect(names(byStage(replace(list, "build", hook("build", "POST_RELEASE"))))).toEqual([
      "test",
      "check",
      "notify",
      "build",
    ]);
    expect(names(remove(list, "test"))).toEqual(["notify", "build", "check"]);
  });
});

test.each([
  [{ name: "" }, "name"],
  [{ name: "taken" }, "name"],
  [{ command: "  " }, "command"],
  [{ timeoutSeconds: 0 }, "timeoutSeconds"],
  [{ timeoutSeconds: 3601 }, "timeoutSeconds"],
  [{ timeoutSeconds: 1.5 }, "timeoutSeconds"],
  [{ timeoutSeconds: Number.NaN }, "timeoutSeconds"],
  [{}, undefined],
])("a hook with %j is wrong in %j", (change, field) =>
  expect(hookProblem({ ...hook("fine", "POST_RELEASE"), ...change }, ["taken"])?.field).toBe(field),
);
