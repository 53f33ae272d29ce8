import { describe, expect, test } from "vitest";
import { deployedFirst, lastDeployed, matcher, patternPrefix } from "../src/lib/pattern";
import { watched } from "../src/lib/words";

const names = [
  "main", "develop", "develop2", "release", "release/1", "release/1.0", "release/2.1", "release/1/2",
  "release/v1", "release/vx", "release/v12", "feature", "feature/a", "feature/a/b", "fix", "a/fix", "a/b/fix",
  "a/b", "a/x/b", "a/x/y/b", "a", "ab", "hot*fix", "hot*fix2", "hotfix", "x/a/b", "x/a/b1", "x/c", "x/cc", "x/a",
  "b1", "d1", "Main", "release/a", "release/-", "q.x", "a]b", "}a", "éü", "aéé", "a/q/z", "a/q/r/z1", ".dot",
  "]x", "v+a(1)", "😀",
];

// What the service's own rules answer for each pattern on all of these names (services/deployer/internal/record/rules).
const answers: [pattern: string, matches: string[]][] = [
  ["release/*", ["release/1", "release/1.0", "release/2.1", "release/v1", "release/vx", "release/v12", "release/a", "release/-"]],
  ["feature/**", ["feature", "feature/a", "feature/a/b"]],
  ["**", ["main", "develop", "develop2", "release", "release/1", "release/1.0", "release/2.1", "release/1/2", "release/v1", "release/vx", "release/v12", "feature", "feature/a", "feature/a/b", "fix", "a/fix", "a/b/fix", "a/b", "a/x/b", "a/x/y/b", "a", "ab", "hot*fix", "hot*fix2", "hotfix", "x/a/b", "x/a/b1", "x/c", "x/cc", "x/a", "b1", "d1", "Main", "release/a", "release/-", "q.x", "a]b", "}a", "éü", "aéé", "a/q/z", "a/q/r/z1", ".dot", "]x", "v+a(1)", "😀"]],
  ["*", ["main", "develop", "develop2", "release", "feature", "fix", "a", "ab", "hot*fix", "hot*fix2", "hotfix", "b1", "d1", "Main", "q.x", "a]b", "}a", "éü", "aéé", ".dot", "]x", "v+a(1)", "😀"]],
  ["**/fix", ["fix", "a/fix", "a/b/fix"]],
  ["a/**/b", ["a/b", "a/x/b", "a/x/y/b"]],
  ["release/v[0-9]*", ["release/v1", "release/v12"]],
  ["release/v[!0-9]", ["release/vx"]],
  ["rel?ase", ["release"]],
  ["{main,develop}*", ["main", "develop", "develop2"]],
  ["feature/[", []],
  ["a**", []],
  ["hot\\*fix*", ["hot*fix", "hot*fix2"]],
  ["x/{a/b,c}*", ["x/a/b", "x/a/b1", "x/c", "x/cc"]],
  ["[a-c]?", ["ab", "b1"]],
  ["[^/]*", ["main", "develop", "develop2", "release", "feature", "fix", "a", "ab", "hot*fix", "hot*fix2", "hotfix", "b1", "d1", "Main", "q.x", "a]b", "}a", "éü", "aéé", ".dot", "]x", "v+a(1)", "😀"]],
  ["**/**", ["main", "develop", "develop2", "release", "release/1", "release/1.0", "release/2.1", "release/1/2", "release/v1", "release/vx", "release/v12", "feature", "feature/a", "feature/a/b", "fix", "a/fix", "a/b/fix", "a/b", "a/x/b", "a/x/y/b", "a", "ab", "hot*fix", "hot*fix2", "hotfix", "x/a/b", "x/a/b1", "x/c", "x/cc", "x/a", "b1", "d1", "Main", "release/a", "release/-", "q.x", "a]b", "}a", "éü", "aéé", "a/q/z", "a/q/r/z1", ".dot", "]x", "v+a(1)", "😀"]],
  ["?", ["a", "😀"]],
  ["release/[a-]*", ["release/a", "release/-"]],
  ["*.x", ["q.x"]],
  ["rele?se/{1,2}.*", ["release/1.0", "release/2.1"]],
  ["a]*", ["a]b"]],
  ["}*", []],
  ["*é[é-ü]", ["éü", "aéé"]],
  ["a/*/**/z*", ["a/q/z", "a/q/r/z1"]],
  ["[\\]]*", ["]x"]],
  ["v+*(1)", ["v+a(1)"]],
];

describe("patterns of branches", () => {
  test.each(answers)("%s", (pattern, matches) => {
    expect(names.filter(matcher(pattern))).toEqual(matches);
  });

  test("where a push deploys, in words", () => {
    expect(["main", "release/*"].map(watched)).toEqual(["main", "a branch that matches release/*"]);
  });

  test("what to search for is the plain beginning", () => {
    expect(["release/*", "*", "feature/**", "rel?ase", "{main,dev}*", "a\\*b", "main"].map(patternPrefix)).toEqual(["release/", "", "feature/", "rel", "", "a", "main"]);
  });
});

describe("which branch to deploy", () => {
  const deployment = (number: number, branch?: string, tag?: string) => ({ number, branch, tag });

  test("each branch has its newest deployment; tags and what had no branch have none", () => {
    const last = lastDeployed([deployment(5, "release/1"), deployment(4, "release/2", "v2"), deployment(3), deployment(2, "release/2"), deployment(1, "release/1")]);
    expect([...last].map(([name, d]) => [name, d.number])).toEqual([
      ["release/1", 5],
      ["release/2", 2],
    ]);
  });

  test("the one deployed last comes first; those never deployed keep their order; what is gone is not offered", () => {
    const branches = ["release/9", "release/1", "release/8", "release/2"].map((name) => ({ name }));
    const last = lastDeployed([deployment(7, "release/2"), deployment(6, "release/gone"), deployment(5, "release/1")]);
    expect(deployedFirst(branches, last).map((b) => [b.name, b.deployed])).toEqual([
      ["release/2", 7],
      ["release/1", 5],
      ["release/9", 0],
      ["release/8", 0],
    ]);
  });
});
