import { expect, test } from "vitest";
import { activityFilter, exportAddress } from "../src/lib/activity";

const filter = (query: string) => activityFilter(new URLSearchParams(query));

test("an address asks for what its parts say", () => {
  expect(filter("who=%20Ann%20&kind=app&app=web")).toEqual({ actor: "Ann", action: "app", app: "web" });
  expect(filter("from=2026-11-22&to=2026-11-22")).toEqual({
    after: new Date(2026, 10, 22).toISOString(),
    before: new Date(2026, 10, 23).toISOString(),
  });
});

test("what cannot be read asks for nothing", () => {
  expect(filter("")).toEqual({});
  expect(filter("kind=nonsense&from=yesterday&to=1")).toEqual({});
  expect(filter("from=2026-11-22&to=2026-11-20")).toEqual({ after: new Date(2026, 10, 22).toISOString() });
});

test("the file has the list's filter", () => {
  expect(exportAddress("a", { actor: "A&B", app: "web" }, "csv")).toBe(
    "/v1/workspaces/a/activity:export?format=csv&actor=A%26B&app=web",
  );
});
