// Back, Forward and a reload: filters, the place on the page and in the log, what is open; a link to a line, also
// for somebody who has to sign in first.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { connect, open, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", false);
  // Enough that a page of it is far longer than a window.
  for (let i = 0; i < 60; i++)
    await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { retention: 1 + (i % 50) });
});

afterAll(() => s?.end());

const place = () => page.evaluate(() => Math.round(scrollY));
const numbers = async () => (await page.locator(".line-number").allTextContents()).map(Number);

test("Back leads to the place on a page, a new page begins at its top, and a reload stays", async () => {
  await page.goto(s.at("activity?kind=app"));
  const entries = page.locator(".activity li");
  await entries.nth(49).waitFor();
  const link = entries.nth(40).getByRole("link").first();
  await link.scrollIntoViewIfNeeded();
  const before = await place();
  expect(before).toBeGreaterThan(500);
  await link.click();
  await page.waitForURL(/\/apps\/web$/);
  await page.getByRole("heading", { name: "Recent deployments" }).waitFor();
  expect(await place()).toBe(0);
  await page.goBack();
  await entries.nth(49).waitFor();
  await expect.poll(place).toBe(before);
  expect(await page.getByLabel("What").inputValue()).toBe("app");
  await page.reload();
  await entries.nth(49).waitFor();
  await expect.poll(place).toBe(before);
  await page.goForward();
  await page.waitForURL(/\/apps\/web$/);
  await page.getByRole("heading", { name: "Recent deployments" }).waitFor();
  await expect.poll(place).toBe(0);
  s.calm();
});

test("what was open over a page does not stay over the one before", async () => {
  await page.goto(s.at("apps"));
  await page.getByRole("link", { name: "web", exact: true }).click();
  await page.getByRole("heading", { name: "Recent deployments" }).waitFor();
  await page.keyboard.press("Control+k");
  await page.getByRole("dialog", { name: "Jump to" }).waitFor();
  await page.goBack();
  await page.waitForURL(/\/apps$/);
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("heading", { name: "Apps" }).waitFor();
  s.calm();
});

test("filters that are typed stay in the address, one step of history a page", async () => {
  await s.visit("apps/web?tab=deliveries");
  await page.getByLabel("Branch").pressSequentially("release/9");
  await expect.poll(() => new URL(page.url()).searchParams.get("branch")).toBe("release/9");
  await page.reload();
  expect(await page.getByLabel("Branch").inputValue()).toBe("release/9");
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.waitForURL(/\/activity$/);
  await page.getByLabel("Who").pressSequentially("Local owner");
  await expect.poll(() => new URL(page.url()).searchParams.get("who")).toBe("Local owner");
  await page.goBack();
  await page.waitForURL(/tab=deliveries/);
  await expect.poll(() => page.getByLabel("Branch").inputValue()).toBe("release/9");
  await page.goForward();
  await page.waitForURL(/\/activity/);
  await expect.poll(() => page.getByLabel("Who").inputValue()).toBe("Local owner");
  s.calm();
});

test("a reload in the middle of a deployment goes on with the same log, at the same line", async () => {
  const hook = {
    name: "slow",
    stage: "POST_SOURCE_CONTROL",
    command: "for i in $(seq 400); do echo part $i; done; for i in $(seq 401 4000); do echo part $i; sleep 0.2; done",
  };
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks: [hook] });
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).first().click();
  await page.waitForURL(/\/deployments\/1$/);
  await page.getByText("part 400", { exact: true }).waitFor();
  const rising = async () => {
    const shown = await numbers();
    expect(shown.length).toBeGreaterThan(10);
    expect(shown).toEqual(shown.map((_, i) => (shown[0] ?? 0) + i));
    return shown.at(-1) ?? 0;
  };
  const last = await rising();
  await page.reload();
  await page.locator(".line-number").first().waitFor();
  await eventually("the log to go on", async () => (await rising()) > last + 2);

  // A reader in the middle is at the same line again, and what comes does not move them.
  const lines = page.getByRole("group", { name: "Lines of the log" });
  await lines.hover();
  await page.mouse.wheel(0, -3000);
  await page.getByRole("button", { name: "Follow" }).waitFor();
  const kept = () => page.evaluate(() => Object.values({ ...sessionStorage }).find((v) => /^\d+$/.test(v)));
  const top = await eventually("the place to be kept", async () => Number(await kept()) || undefined);
  await page.reload();
  await page.getByRole("button", { name: "Follow" }).waitFor();
  await page.locator(".line-number", { hasText: new RegExp(`^${top}$`) }).waitFor();
  await expect
    .poll(() =>
      page.evaluate((n) => {
        const box = document.querySelector(".lines")?.getBoundingClientRect();
        const row = [...document.querySelectorAll(".line-number")].find((l) => l.textContent === String(n));
        return Math.abs((row?.getBoundingClientRect().top ?? 1e6) - (box?.top ?? 0)) < 60;
      }, top),
    )
    .toBe(true);
  await rising();
  s.calm();
});

test("a link to a line leads there after a reload, and after signing in", async () => {
  await page.goto(s.at("apps/web/deployments/1#L120"));
  const target = page.locator(".line.target");
  await target.getByText("120", { exact: true }).first().waitFor();
  await page.reload();
  await target.waitFor();
  expect(await target.locator(".line-number").textContent()).toBe("120");
  const context = await open(s.browser);
  const stranger = await context.newPage();
  await stranger.goto(s.at("apps/web/deployments/1#L120"));
  await stranger.waitForURL(/\/sign-in/);
  await stranger.getByText("admin token").first().click();
  await stranger.locator("#sign-in input").fill(s.stack.adminToken);
  await stranger.locator("#sign-in button").click();
  await stranger.waitForURL(/\/deployments\/1#L120$/);
  expect(await stranger.locator(".line.target .line-number").textContent()).toBe("120");
  await context.close();
  s.calm();
});
