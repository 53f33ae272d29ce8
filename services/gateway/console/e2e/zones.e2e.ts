// A reader whose clock is not UTC sees one time zone, their own; UTC is on hover.
import { afterAll, beforeAll, expect, test } from "vitest";
import { check, connect, open, scene, signIn, Watch, visit, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
const zone = "Asia/Kathmandu"; // 5 h 45 min before UTC: no hour and no minute is the same

beforeAll(async () => {
  s = await scene("sample");
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  await s.stack.push("acme/web", "main", "Say when");
  await eventually("the push to be live", async () => {
    const web = await s.stack.api<{ live?: { number: number } }>("GET", "/v1/workspaces/default/apps/web");
    return web.live?.number === 2;
  });
});

afterAll(() => s?.end());

/** The clock of a moment where the reader is. */
const local = (iso: string) =>
  new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(
    new Date(iso),
  );

test("what the API says in UTC is the reader's time on every page, with UTC on hover", async () => {
  const context = await open(s.browser, { timezoneId: zone });
  const watch = new Watch(context);
  await signIn(s.stack, context);
  const page = await context.newPage();

  await s.stack.control("POST", "faults", { route: "oauth", status: 503, body: "no" });
  const lastError = await eventually("the refresh to fail", async () => {
    await s.stack.api("POST", "/v1/workspaces/default/integrations/bitbucket:refresh", {}).catch(() => undefined);
    return (
      await s.stack.api<{ lastError?: { message: string } }>("GET", "/v1/workspaces/default/integrations/bitbucket")
    ).lastError;
  });
  const said = [...lastError.message.matchAll(/(\d{4}-\d\d-\d\d) (\d\d:\d\d) UTC/g)];
  expect(said.length, lastError.message).toBeGreaterThan(1); // since when, and until when deployments go on

  await page.goto(s.at("settings/integrations"));
  const banner = page.locator(".banner").filter({ hasText: "has not answered our token refresh since" });
  for (const [, date, hm] of said) {
    const iso = `${date ?? ""}T${hm ?? ""}Z`;
    const time = banner.locator(`time[datetime="${iso}"]`).first();
    await time.waitFor();
    expect(await time.textContent()).toContain(local(iso));
    expect(await time.getAttribute("title")).toMatch(new RegExp(`GMT\\+5:45 \\(${hm ?? ""}:00 UTC\\)$`));
  }
  await check(page, "zones-integrations");

  for (const path of [
    "settings/integrations",
    "apps",
    "apps/web",
    "apps/web?tab=deployments",
    "apps/web?tab=deliveries",
    "apps/web/deployments/1",
    "activity",
    "why?branch=main",
  ]) {
    await visit(page, s.at(path));
    await expect.poll(() => page.locator("main time").count(), { message: path }).toBeGreaterThan(0);
    expect(await page.locator("main").innerText(), path).not.toMatch(/\d\d:\d\d(:\d\d)? ?(UTC|Z)\b/);
    for (const title of await page
      .locator("main time")
      .evaluateAll((all) => all.map((t) => t.getAttribute("title") ?? "")))
      expect(title, path).toMatch(/GMT\+5:45 \(\d\d:\d\d:\d\d UTC\)$/);
  }
  await s.stack.control("DELETE", "faults");
  expect(watch.problems).toEqual([]);
  await context.close();
});
