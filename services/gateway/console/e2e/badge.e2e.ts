// The status badge: switched on, seen by anybody who has its link, revoked by switching it off.
import { afterAll, beforeAll, expect, test } from "vitest";
import { check, connect, narrow, scene, type Scene } from "./browser";
import { createApp } from "./stack";

let s: Scene;

beforeAll(async () => {
  s = await scene("sample");
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", false);
});

afterAll(() => s?.end());

test("the badge has a link of its own, and none once it is switched off", async () => {
  const { page } = s;
  await s.visit("apps/web?tab=settings");
  const card = page.getByRole("region", { name: "Status badge" });
  const badge = card.getByRole("img");
  const turn = () => card.getByText("Show a badge to whoever").click();
  await turn();
  await badge.waitFor();
  await expect.poll(() => badge.evaluate((i) => (i as HTMLImageElement).naturalWidth)).toBeGreaterThan(100);
  await check(page, "settings-badge");
  await narrow(page, "settings-badge");
  const link = (await badge.getAttribute("src")) ?? "";
  expect(await card.getByText(`![deployment](${link})`).count()).toBe(1);
  const seen = await fetch(link); // without any cookie
  expect([seen.status, seen.headers.get("content-type")]).toEqual([200, "image/svg+xml"]);
  expect(await seen.text()).not.toMatch(/web|acme|default/);
  await turn();
  await badge.waitFor({ state: "detached" });
  expect((await fetch(link)).status).toBe(404);
  await turn();
  await badge.waitFor();
  expect(await badge.getAttribute("src")).not.toBe(link);
  expect((await fetch(link)).status).toBe(404);
  s.calm();
});
