import { expect, test } from "vitest";
import type { Remedy } from "../src/api/client";
import schema from "../../internal/openapi/openapi.json";
import { actionWords, questionOf, remedyPath, whyPath } from "../src/lib/why";

test("an address asks one question, and its page's address asks the same", () => {
  expect(questionOf(new URLSearchParams(""))).toBeUndefined();
  expect(questionOf(new URLSearchParams("commit=%20&app=web"))).toBeUndefined();
  const path = whyPath("acme", "delivery", "hook/7");
  expect(path).toBe("/w/acme/why?delivery=hook%2F7");
  expect(questionOf(new URL(path, "http://x").searchParams)).toEqual({ about: "delivery", value: "hook/7", app: "" });
  const other = new URL(whyPath("acme", "deployment", 12, "web"), "http://x");
  expect(questionOf(other.searchParams)).toEqual({ about: "deployment", value: "12", app: "web" });
});

test("every remedy of the API is a button or leads to a page", () => {
  const kinds = schema.components.schemas.RemedyKind.enum as Remedy["kind"][];
  expect(kinds.length).toBeGreaterThan(10);
  for (const kind of kinds) {
    if (kind.endsWith("UNSPECIFIED")) continue;
    const r: Remedy = { kind, app: "web", deployment: 3, webhook: "h", delivery: 1 };
    const path = remedyPath("acme", r);
    expect(path === undefined ? actionWords(r)?.[0] : path.word, kind).toBeTruthy();
    expect(path?.to ?? "/w/acme/", kind).toMatch(/^\/w\/acme\//);
  }
});
