// A slow network, and a question that is never answered: what was pressed shows that it is under way and is done once,
// what is old replaces nothing newer, and who has gone elsewhere is left there.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page, Route } from "playwright-core";
import { check, connect, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  await createApp(s.stack, "api", "acme/api", true);
});

afterAll(() => s?.end());

/** Holds what matches until it is released. */
async function holding(
  pattern: string | RegExp,
  method: string,
): Promise<{ held: () => number; release: () => Promise<void> }> {
  const held: (() => void)[] = [];
  let open = false;
  const handler = async (route: Route) => {
    if (route.request().method() === method && !open) await new Promise<void>((r) => held.push(r));
    await route.continue().catch(() => undefined); // given up meanwhile
  };
  await page.route(pattern, handler);
  return {
    held: () => held.length,
    release: async () => {
      open = true;
      for (const go of held) go();
      await page.unroute(pattern, handler);
    },
  };
}

test("over a slow line a double click does one thing, and shows that it is under way", async () => {
  const line = await s.context.newCDPSession(page);
  await page.goto(s.at("apps/web"));
  await page.getByRole("button", { name: "Deploy latest" }).first().waitFor();
  await line.send("Network.enable");
  await line.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 400,
    downloadThroughput: 50 * 1024,
    uploadThroughput: 50 * 1024,
  });
  let posts: string[] = [];
  page.on("request", (r) => {
    if (r.method() !== "GET") posts.push(`${r.method()} ${new URL(r.url()).pathname.split("/").slice(4).join("/")}`);
  });
  await page.getByRole("button", { name: "Deploy latest" }).first().dblclick();
  await page.getByRole("button", { name: "Starting…" }).first().waitFor();
  await page.waitForURL(/\/deployments\/2$/);
  await page.locator(".subline").getByText("Completed").waitFor();
  expect(posts).toEqual(["POST apps/web/deployments"]);

  posts = [];
  await s.visit("settings/integrations");
  await page.getByRole("button", { name: "Refresh Token" }).dblclick();
  await page.getByRole("button", { name: "Refreshing…" }).waitFor();
  await page.getByText("Token refreshed.").waitFor();
  expect(posts).toEqual(["POST integrations/bitbucket:refresh"]);

  posts = [];
  await s.visit("settings/api-keys");
  await page.getByRole("button", { name: "Create key" }).click();
  await page.getByLabel("Name").fill("once");
  await page.getByRole("form", { name: "Create an API key" }).getByRole("button", { name: "Create key" }).dblclick();
  await page.getByText("Copy the key now").waitFor();
  expect(posts).toEqual(["POST apiKeys"]);

  posts = [];
  await s.visit("settings/notifications");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByLabel("Name").fill("hook");
  await page.getByLabel("URL").fill("https://hooks.example.com/devpilot");
  await page.locator("form").getByRole("button", { name: "Save", exact: true }).dblclick();
  await page.getByText("Copy the secret now").waitFor();
  expect(posts).toEqual(["POST notificationTargets"]);
  posts = [];
  await page.getByRole("button", { name: "Rotate secret of hook" }).dblclick();
  await expect.poll(() => posts.length).toBeGreaterThan(0);
  await page.getByRole("button", { name: "Rotate secret of hook" }).and(page.locator(":not([aria-busy])")).waitFor();
  expect(posts.length).toBe(1);

  // On and off again: in the order in which it was pressed.
  posts = [];
  await s.visit("apps/web");
  const auto = page.getByRole("switch", { name: /Deploy on every push/ });
  await auto.press(" ");
  await auto.press(" ");
  await auto.press(" ");
  await eventually("the last one to be what is so", async () => {
    const a = await s.stack.api<{ autoDeploy: boolean }>("GET", "/v1/workspaces/default/apps/web");
    return posts.length === 3 && !a.autoDeploy;
  });
  await expect.poll(() => auto.isChecked()).toBe(false);
  await line.detach();
  s.calm();
});

test("another app's deployments are never shown for this one", async () => {
  await page.goto(s.at("apps/web"));
  await page.getByRole("row").filter({ hasText: "#2" }).waitFor();
  const lists = await holding(/\/apps\/api\/deployments\?/, "GET");
  await page.keyboard.press("Control+k");
  await page.getByRole("searchbox", { name: "Page, app, deployment or workspace" }).fill("api");
  await page.getByRole("option", { name: "api", exact: false }).filter({ hasText: "acme/api" }).first().waitFor();
  await page.getByRole("option").filter({ hasText: "acme/api" }).first().click();
  await page.waitForURL(/\/apps\/api$/);
  await page.getByRole("heading", { name: "Recent deployments" }).waitFor();
  await expect.poll(lists.held).toBeGreaterThan(0);
  expect(await page.getByRole("row").filter({ hasText: "#2" }).count()).toBe(0);
  await lists.release();
  await page.getByRole("row").filter({ hasText: "#1" }).waitFor();
  expect(await page.getByRole("row").filter({ hasText: "#2" }).count()).toBe(0);
  s.calm();
});

test("who went elsewhere before the answer came is left there", async () => {
  await page.goto(s.at("apps/api"));
  const starts = await holding("**/apps/api/deployments", "POST");
  await page.getByRole("button", { name: "Deploy latest" }).first().click();
  await expect.poll(starts.held).toBe(1);
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.getByRole("heading", { name: "Activity" }).waitFor();
  const answered = page.waitForResponse(
    (r) => r.request().method() === "POST" && r.url().endsWith("/apps/api/deployments"),
  );
  await starts.release();
  await answered;
  await page.getByText("deployment.create").first().waitFor(); // what was done is shown where they are
  expect(page.url()).toMatch(/\/activity$/);
  s.calm();
});

test("what changes faster than answers come is shown all the same", async () => {
  await page.goto(s.at("apps/api?tab=settings"));
  await page.getByLabel("Releases to keep").waitFor();
  // Each answer takes longer than the next change.
  await page.route(/\/apps\/api$/, async (route) => {
    const answer = await route.fetch().catch(() => undefined);
    await new Promise((r) => setTimeout(r, 700));
    if (answer === undefined) await route.abort().catch(() => undefined);
    else await route.fulfill({ response: answer }).catch(() => undefined);
  });
  let changing = true;
  const changes = (async () => {
    for (let i = 0; changing; i++)
      await s.stack.api("PATCH", "/v1/workspaces/default/apps/api", { retention: 20 + (i % 20) });
  })();
  try {
    await expect.poll(async () => Number(await page.getByLabel("Releases to keep").inputValue())).toBeGreaterThan(19);
    const first = await page.getByLabel("Releases to keep").inputValue();
    await expect.poll(() => page.getByLabel("Releases to keep").inputValue()).not.toBe(first);
  } finally {
    changing = false;
    await changes;
  }
  await page.unroute(/\/apps\/api$/);
  const { retention } = await s.stack.api<{ retention: number }>("GET", "/v1/workspaces/default/apps/api");
  await expect.poll(() => page.getByLabel("Releases to keep").inputValue()).toBe(String(retention));
  s.calm();
});

test("a question that hangs is given up, said, and asked again", async () => {
  await page.goto(s.at("apps"));
  await page.locator(".app-row").first().waitFor();
  const hanging = await holding(/\/activity\?/, "GET");
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.getByRole("status", { name: "Loading" }).waitFor();
  await s.watch.expecting(/ERR_/, async () => {
    await page.getByText("Devpilot did not answer in time.").waitFor({ timeout: 90_000 });
  });
  await check(page, "slow-hung");
  await hanging.release();
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator(".activity li").first().waitFor();
  s.calm();
});
