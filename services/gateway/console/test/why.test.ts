import { expect, test, vi } from "vitest";
import type { Explanation, Remedy } from "../src/api/client";
import schema from "../../internal/openapi/openapi.json";
import { createElement } from "react";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToStaticMarkup } from "react-dom/server";
import { MemoryRouter } from "react-router";
import { actionWords, everywhere, opening, questionOf, remedyPath, whyPath } from "../src/lib/why";
import { PlaceProvider, type Place } from "../src/lib/workspace";
import answers from "./why.json";

vi.stubGlobal("location", new URL("http://127.0.0.1/")); // the API's client begins its addresses with it
const { Explained } = await import("../src/pages/why");

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

// What the API answers about each cause, recorded where the causes are made (services/allinone/e2e, TestWhy).
const recorded = Object.entries(answers as unknown as Record<string, Explanation>);

/** What the page shows of an answer, without its markup. */
function shown(e: Explanation): { html: string; text: string } {
  const place = { ws: "acme", workspace: { role: "ADMIN" }, adminOnly: undefined } as unknown as Place;
  const page = createElement(Explained, { ws: "acme", explanation: e, again: () => undefined });
  const html = renderToStaticMarkup(
    createElement(
      QueryClientProvider,
      { client: new QueryClient() },
      createElement(MemoryRouter, null, createElement(PlaceProvider, { value: place }, page)),
    ),
  );
  const text = html
    .replace(/<[^>]*>/g, " ")
    .replaceAll("&#x27;", "'")
    .replaceAll("&quot;", '"')
    .replaceAll("&amp;", "&");
  return { html, text: text.replace(/\s+/g, " ") };
}

test("the first sentence is the headline", () => {
  expect(opening("It is live.")).toEqual(["It is live.", ""]);
  expect(opening("It is live. No delivery told of it: A push came. So.")).toEqual([
    "It is live.",
    "No delivery told of it: A push came. So.",
  ]);
  expect(opening("No file under site/** changed (only index.html changed).")[1]).toBe("");
});

test.each(recorded)("the page says why, and what mends it: %s", (_name, e) => {
  const { html, text } = shown(e);
  const [first, more] = opening(e.message);
  // A time in a sentence is the reader's.
  for (const said of `${first} ${more}`.trim().split(/\d{4}-\d\d-\d\d \d\d:\d\d UTC/)) {
    expect(text).toContain(said.trim().replace(/\s+/g, " "));
  }
  expect(html).toMatch(/<h2>.+<\/h2>/);
  if (e.remedy !== undefined) {
    const path = remedyPath("acme", e.remedy);
    const word = path?.word ?? actionWords(e.remedy)?.[0] ?? "no word";
    expect(html).toMatch(new RegExp(`<(a|button)[^>]*>(<[^>]*>)*${word}`));
  } else if (!everywhere(e)) {
    expect(html).toMatch(/<button[^>]*>Ask again/);
  } else {
    expect(e.message, "what is live and needs nothing was put right").toMatch(/Devpilot put it right\.$/);
  }
  for (const step of e.steps) expect(text).toContain(step.app ?? "");
});

test("every cause was recorded", () => {
  expect(recorded.length).toBeGreaterThanOrEqual(32);
});
