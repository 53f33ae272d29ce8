// The reference of the API, as somebody reads it who came from the console: with a mouse and with keys alone, on a
// desk and on a telephone, in both colour schemes.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, scene, type Scene } from "./browser";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
});

afterAll(() => s?.end());

test("the console leads to it, and it leads to every operation", async () => {
  await s.visit("apps");
  await page.getByRole("link", { name: "API reference" }).click();
  await page.waitForURL("**/docs/api");
  await page.getByRole("heading", { level: 1, name: "Devpilot API" }).waitFor();
  const links = await page
    .locator("main ul.list a")
    .evaluateAll((all) => all.map((a) => (a as HTMLAnchorElement).href));
  expect(links.length).toBeGreaterThan(70);
  expect(new Set(links).size).toBe(links.length);
  await page.getByRole("link", { name: "Creates an app", exact: true }).click();
  await page.waitForURL("**/docs/api/createApp");
  expect(await page.locator("#example-curl").innerText()).toContain('"$DEVPILOT_URL/v1/workspaces/default/apps"');
  await page.getByText("APP_EXISTS", { exact: true }).waitFor();
  s.calm(); // the policy refuses nothing of it
});

test.each([
  ["reference", ""],
  ["reference-operation", "/createApp"],
  ["reference-stream", "/readLog"],
  ["reference-reasons", "/reasons"],
])("%s is readable everywhere", async (name, path) => {
  await page.goto(`${s.stack.url}/docs/api${path}`);
  await check(page, name);
  await page.setViewportSize({ width: 320, height: 700 });
  await check(page, `${name}-320`);
  await page.setViewportSize({ width: 1280, height: 860 });
});

test("keys alone do", async () => {
  await page.goto(`${s.stack.url}/docs/api`);
  await page.keyboard.press("Tab");
  const skip = page.getByRole("link", { name: "Skip to the page" });
  expect(await skip.evaluate((e) => e === document.activeElement && e.getBoundingClientRect().left >= 0)).toBe(true);
  await page.keyboard.press("Enter");
  await expect.poll(() => page.evaluate(() => document.activeElement?.id)).toBe("main");
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.getAttribute("href"))).toBe("/docs/api/createApp");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/docs/api/createApp");
  s.calm();
});
