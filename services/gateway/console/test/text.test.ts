import { describe, expect, test } from "vitest";
import { ansi, consumersPage, httpUrl, initials, isPattern, plain, safe, slug, subject } from "../src/lib/text";

describe("text from strangers", () => {
  test("cannot reorder itself", () => {
    expect(safe("abc\u202egnp.exe")).toBe("abc⟨U+202E⟩gnp.exe");
    expect(safe("a\u2066b\u2069")).toBe("a⟨U+2066⟩b⟨U+2069⟩");
    expect(safe("עברית")).toBe("עברית");
  });
  test("keeps tabs and loses controls", () => expect(safe("a\tb\u0007\u0000c\u009bd")).toBe("a\tbcd"));
  test("a commit's subject has no commands for terminals, and is no wall of text", () => {
    expect(subject("\u001b[31mred\u001b[0m alert")).toBe("red alert");
    expect(subject("x".repeat(160))).toBe("x".repeat(160));
    expect(subject("🚀".repeat(3000))).toBe("🚀".repeat(160) + "…");
  });
  test("a commit's subject is its first line", () => expect(subject("Fix\r\n\r\nlong")).toBe("Fix"));
});

describe("a terminal's colours", () => {
  test("are kept, and end where they end", () => {
    expect(ansi("a \u001b[1;31mred\u001b[0m b")).toEqual([
      { text: "a ", classes: "" },
      { text: "red", classes: "a31 ab" },
      { text: " b", classes: "" },
    ]);
  });
  test("of 256 and of all kinds are left out without eating what follows", () => {
    expect(ansi("\u001b[38;5;196;1mx\u001b[48;2;1;2;3my")).toEqual([{ text: "xy", classes: "ab" }]);
  });
  test("are all that is obeyed", () => {
    expect(ansi("\u001b[2J\u001b[10;10Ha\u001b]8;;https://evil.example\u0007link\u001b]8;;\u0007\u001b[?25l")).toEqual([
      { text: "alink", classes: "" },
    ]);
    expect(plain("\u001b]0;title\u001b\\x\u001bPq\u001b\\y\u001b(Bz")).toBe("xyz");
  });
  test("a sequence that was broken off or aborted shows nothing of itself", () => {
    expect(plain("ok\u001b[38;5")).toBe("ok");
    expect(plain("\u001b]0;evil\u001b[31mred")).toBe("red");
    expect(ansi("\u001b]0;evil\u001b[31mred\u001b[")).toEqual([{ text: "red", classes: "a31" }]);
  });
  test("a sequence that never ends shows nothing of itself", () => expect(plain("ok\u001b]0;evil")).toBe("ok"));
  test("a progress bar shows its last state", () => expect(plain("10 %\r50 %\r100 %\r")).toBe("100 %"));
});

test("links lead to web pages only", () => {
  expect(httpUrl("https://bitbucket.org/acme/web")).toBe("https://bitbucket.org/acme/web");
  for (const bad of ["javascript:alert(1)", "data:text/html,x", "//x", "", undefined])
    expect(httpUrl(bad)).toBeUndefined();
});

test.each([
  ["Jane Developer", "JD"],
  ["jane-dev", "JD"],
  ["jane", "J"],
  ["", "?"],
  ["😀 smile", "😀S"],
])("the initials of %j are %j", (name, want) => expect(initials(name)).toBe(want));

test.each([
  ["Web", "web"],
  ["My App_2", "my-app-2"],
  ["--x--", "x"],
  ["Größe", "gro-e"],
  ["x".repeat(80), "x".repeat(63)],
])("the app id of %j", (name, want) => {
  if (name === "Größe") expect(slug(name)).toMatch(/^[a-z0-9][a-z0-9-]*$/);
  else expect(slug(name)).toBe(want);
});

test.each([
  ["https://bitbucket.org", "acme", "https://bitbucket.org/acme/workspace/settings/api"],
  ["https://bitbucket.org/", " Acme_1.x-y ", "https://bitbucket.org/Acme_1.x-y/workspace/settings/api"],
  ["https://bitbucket.org", "", undefined],
  ["https://bitbucket.org", "..", undefined],
  ["https://bitbucket.org", "a/b", undefined],
  ["https://bitbucket.org", "https://evil.test", undefined],
  ["", "acme", undefined],
  ["javascript:alert(1)", "acme", undefined],
])("on %j the consumers of %j are at %j", (site, workspace, page) => expect(consumersPage(site, workspace)).toBe(page));

test.each([
  ["main", false],
  ["release/1.2", false],
  ["release/*", true],
  ["v?", true],
  ["release/[12]", true],
])("whether %j is a pattern: %j", (branch, is) => expect(isPattern(branch)).toBe(is));
