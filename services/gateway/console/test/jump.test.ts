import { expect, test } from "vitest";
import { places } from "../src/lib/jump";

const apps = [
  { id: "web", repositoryFullName: "acme/web", branch: "main" },
  { id: "web2", repositoryFullName: "acme/other", branch: "main" },
  { id: "docs", repositoryFullName: "acme/handbook", branch: "v*" },
];
const workspaces = [
  { id: "default", displayName: "Default" },
  { id: "team", displayName: "The team" },
] as Parameters<typeof places>[3];
const to = (query: string) => places(query, "default", apps, workspaces).map((p) => p.to);

test("an empty query names pages, apps and the other workspaces", () => {
  expect(to("")).toEqual([
    "/w/default/apps",
    "/w/default/apps/new",
    "/w/default/why",
    "/w/default/activity",
    "/w/default/settings/integrations",
    "/w/default/settings/notifications",
    "/w/default/settings/members",
    "/w/default/settings/workspaces",
    "/w/default/settings/api-keys",
    "/w/default/settings/sessions",
    "/w/default/apps/web",
    "/w/default/apps/web2",
    "/w/default/apps/docs",
    "/w/team/apps",
  ]);
});

test("what begins with the query comes first, and repositories are found by name", () => {
  expect(to("doc")).toEqual(["/w/default/apps/docs"]);
  expect(to("HANDBOOK ")).toEqual(["/w/default/apps/docs"]);
  expect(to("apps")[0]).toBe("/w/default/apps");
  expect(to("new")[0]).toBe("/w/default/apps/new");
  expect(to("nothing of the kind")).toEqual([]);
});

test("an app and a number name a deployment", () => {
  expect(to("docs 12")).toEqual(["/w/default/apps/docs/deployments/12"]);
  expect(to("docs #12")).toEqual(["/w/default/apps/docs/deployments/12"]);
  expect(to("web #3").slice(0, 2)).toEqual(["/w/default/apps/web/deployments/3", "/w/default/apps/web2/deployments/3"]);
  expect(to("web2")).toEqual([
    "/w/default/apps/web2",
    "/w/default/apps/web/deployments/2",
    "/w/default/apps/web2/deployments/2",
  ]);
  expect(to("docs 0")).toEqual([]);
});
