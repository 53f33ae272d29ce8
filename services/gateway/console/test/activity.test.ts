import { expect, test } from "vitest";
import {
  activityFilter,
  activityPage,
  webhookOf,
  byDay,
  dayName,
  exportAddress,
  hasParts,
  inWords,
} from "../src/lib/activity";

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

test("an entry leads to the page of what it was done to", () => {
  expect(activityPage("a", "apps/web")).toBe("/w/a/apps/web");
  expect(activityPage("a", "apps/web/deployments/3")).toBe("/w/a/apps/web/deployments/3");
  expect(activityPage("a", "webhooks/x/deliveries/4")).toBe("/w/a/settings/integrations");
  expect(activityPage("a", "webhooks/x/deliveries/4", "web")).toBe("/w/a/why?delivery=4&app=web");
  expect(activityPage("a", "webhooks/x", "web")).toBe("/w/a/apps/web");
  expect(activityPage("a", "webhooks/x", null)).toBe("/w/a/settings/integrations");
  expect(webhookOf("webhooks/x/deliveries/4")).toBe("x");
  expect(webhookOf("webhooks/x")).toBe("x");
  for (const none of [undefined, "apps/x", "webhooks/", "webhooks/x/other"]) expect(webhookOf(none)).toBeUndefined();
  expect(activityPage("a", "integrations/bitbucket")).toBe("/w/a/settings/integrations");
  expect(activityPage("a", "notificationTargets/t")).toBe("/w/a/settings/notifications");
  for (const none of [undefined, "", "apiKeys/x", "apps/../x", "elsewhere"])
    expect(activityPage("a", none)).toBeUndefined();
});

test("entries stand under their day", () => {
  const at = (day: number, hour: number) => ({ time: new Date(2026, 10, day, hour).toISOString() });
  const list = [at(22, 9), at(21, 23), at(21, 1), at(20, 12)];
  expect(byDay(list).map((d) => [d.day, d.entries.length])).toEqual([
    ["2026-11-22", 1],
    ["2026-11-21", 2],
    ["2026-11-20", 1],
  ]);
  const now = new Date(2026, 10, 22, 10);
  expect(byDay(list).map((d) => dayName(d.day, now))).toEqual(["Today", "Yesterday", "Friday 20 November 2026"]);
});

test("values are told as people read them", () => {
  expect(
    [undefined, '""', "true", "false", '"main"', "5", '["a","b"]', '[{"name":"x"}]', '["cut…'].map(inWords),
  ).toEqual(["not set", "not set", "on", "off", "main", "5", "a, b", '[{"name":"x"}]', '["cut…']);
});

test("what is made of parts is told from what is a word", () => {
  for (const parts of ['[{"name":"build"}]', '{"directory":"."}', '[{"name":"cut after 500 char'])
    expect(hasParts(parts), parts).toBe(true);
  for (const word of [undefined, "", '""', "true", '["uploads/"]', '"{"', "[]"])
    expect(hasParts(word), word).toBe(false);
});
