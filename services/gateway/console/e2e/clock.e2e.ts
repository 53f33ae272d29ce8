// A browser whose clock is hours or days wrong: what is shown is right by the server's.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, open, scene, signIn, visit, Watch, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

const hour = 3600_000;
let s: Scene;

beforeAll(async () => {
  s = await scene("sample");
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  const slow = {
    name: "slow",
    stage: "POST_SOURCE_CONTROL",
    command: "for i in $(seq 3000); do echo $i; sleep 0.3; done",
  };
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks: [slow] });
  await s.stack.api("POST", "/v1/workspaces/default/apps/web/deployments", {});
  await eventually("it to run", async () => {
    const d = await s.stack.api<{ state: string }>("GET", "/v1/workspaces/default/apps/web/deployments/2");
    return d.state === "PROCESSING";
  });
});

afterAll(() => s?.end());

/** A browser whose clock is wrong by so much; `shift` sets it anew. */
async function wrong(
  by: number,
  timezoneId: string,
): Promise<{ page: Page; watch: Watch; close: () => Promise<void> }> {
  const context = await open(s.browser, { timezoneId });
  await context.addInitScript((first: number) => {
    const RealDate = Date;
    const clock = globalThis as unknown as { shift: number };
    clock.shift = first;
    globalThis.Date = class extends RealDate {
      constructor(...args: unknown[]) {
        if (args.length === 0) super(RealDate.now() + clock.shift);
        else super(...(args as [number]));
      }
      static override now() {
        return RealDate.now() + clock.shift;
      }
    } as DateConstructor;
  }, by);
  const watch = new Watch(context);
  await signIn(s.stack, context);
  return { page: await context.newPage(), watch, close: () => context.close() };
}

/** All that the test made is minutes old at most, and nothing of it lies ahead. */
async function told(page: Page, where: string): Promise<void> {
  const shown = () =>
    page
      .locator("main time")
      .evaluateAll((all) => all.map((t) => [t.getAttribute("datetime") ?? "", t.textContent ?? ""] as const));
  const times = await eventually(`times on ${where}`, async () => {
    const all = await shown();
    return all.length > 0 && all;
  });
  const now = Date.now();
  for (const [at, text] of times) {
    const age = now - Date.parse(at);
    if (age < 0 || age > hour / 2) continue; // of the emulator's commits, or a time to come
    expect(text, `${where}: ${at}`).toMatch(/^(just now|\d+ s ago|\d+ min ago|\d\d:\d\d(:\d\d)?)$/);
  }
}

for (const [what, by, zone] of [
  ["3 hours ahead", 3 * hour, "Asia/Kathmandu"],
  ["26 hours behind", -26 * hour, "America/St_Johns"],
  ["9 days ahead", 9 * 24 * hour, "Pacific/Kiritimati"],
] as const) {
  test(`with a clock that is ${what} every page tells the right time`, async () => {
    const { page, watch, close } = await wrong(by, zone);
    // Before anything that has the time in its body is answered.
    let release: () => void = () => undefined;
    const held = new Promise<void>((r) => (release = r));
    await page.route("**/v1/info", async (route) => {
      await held;
      await route.continue();
    });
    await page.goto(s.at("apps"));
    await page.locator(".app-row time").first().waitFor();
    await told(page, "apps, before the first word of the time");
    release();
    for (const path of [
      "apps",
      "apps/web",
      "apps/web?tab=deployments",
      "apps/web/deployments/1",
      "settings/sessions",
    ]) {
      await visit(page, s.at(path));
      await told(page, path);
    }
    await visit(page, s.at("activity"));
    await page.getByRole("heading", { name: "Today" }).waitFor();
    expect(await page.locator("h2.day").allTextContents()).toEqual(["Today"]);
    await told(page, "activity");

    await visit(page, s.at("apps/web/deployments/2"));
    const running = page.locator(".subline").filter({ hasText: "running for" });
    await running.waitFor();
    const said = /running for (?:(\d+) h )?(?:(\d+) min ?)?(?:([\d.]+) s)?/.exec((await running.textContent()) ?? "");
    const took = (Number(said?.[1] ?? 0) * 60 + Number(said?.[2] ?? 0)) * 60_000 + Number(said?.[3] ?? 0) * 1000;
    expect(said, "a time that it runs").not.toBe(null);
    expect(took, said?.[0]).toBeLessThan(hour / 2);

    // What is made for so many days ends so many days from the server's now.
    await visit(page, s.at("settings/api-keys"));
    await page.getByRole("button", { name: "Create key" }).click();
    await page.getByLabel("Name").fill(`of a clock ${what}`);
    await page.getByLabel("Expires").selectOption("7");
    const asked = page.waitForRequest((r) => r.method() === "POST" && r.url().endsWith("/apiKeys"));
    await page.getByRole("form", { name: "Create an API key" }).getByRole("button", { name: "Create key" }).click();
    const { expireTime } = (await asked).postDataJSON() as { expireTime: string };
    expect(Math.abs(Date.parse(expireTime) - Date.now() - 7 * 24 * hour)).toBeLessThan(hour / 2);
    await page.getByText("Copy the key now").waitFor();
    expect(watch.problems).toEqual([]);
    await close();
  });
}

test("a clock that is set while the page is open changes nothing on it", async () => {
  const { page, watch, close } = await wrong(0, "Europe/Berlin");
  await page.goto(s.at("apps/web/deployments/1"));
  await page.locator("main time").first().waitFor();
  const asked = page.waitForResponse("**/v1/info");
  await page.evaluate((by) => ((globalThis as unknown as { shift: number }).shift = by), -5 * hour);
  await asked;
  await expect.poll(() => page.locator("main").innerText()).not.toMatch(/\bin \d+ (h|min|s)\b/);
  await told(page, "after the clock was set");
  await check(page, "clock-set");
  expect(watch.problems).toEqual([]);
  await close();
});
