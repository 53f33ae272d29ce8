// Devpilot is killed under an open page and started again on the same data: the page goes on by itself, nobody has to
// sign in again, nothing typed is lost, and what was pressed meanwhile says what became of it.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;
const interrupted = () => page.getByText("Live updates are interrupted");

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
});

afterAll(() => s?.end());

const expected = /ERR_|Failed to load resource|503|502/;

test("a page that is open over a kill shows what is new afterwards, by itself", async () => {
  await page.goto(s.at("apps/web"));
  await page.locator(".headline").getByText("#1").waitFor();
  await page.getByRole("heading", { name: "The last deployment" }).waitFor(); // all of the page's code is here
  await s.watch.expecting(expected, async () => {
    await s.stack.kill();
    await interrupted().waitFor();
    await check(page, "restart-interrupted");
    await s.stack.begin();
    await interrupted().waitFor({ state: "detached" });
  });
  await s.stack.push("acme/web", "main", "After the restart");
  await page.locator(".headline").getByText("After the restart").waitFor();
  expect(page.url()).not.toContain("sign-in");
  s.calm();
});

test("a page that was opened while Devpilot was away comes by itself when it is back", async () => {
  await page.goto(s.at("apps/web"));
  await page
    .getByRole("heading", { name: /^The last/ })
    .first()
    .waitFor();
  await page.getByRole("link", { name: "Apps", exact: true }).first().click();
  await page.locator(".app-row").first().waitFor();
  await s.watch.expecting(expected, async () => {
    await s.stack.kill();
    // Its code is here already, what it shows is not.
    await page.getByRole("link", { name: "web", exact: true }).click();
    await page.getByRole("navigation", { name: "App" }).getByRole("link", { name: "Deployments" }).click();
    await page.getByText("Devpilot does not answer.").first().waitFor();
    await s.stack.begin();
    await page.getByRole("row").filter({ hasText: "#2" }).waitFor();
    await page.getByText("Devpilot does not answer.").first().waitFor({ state: "detached" });
  });
  s.calm();
});

test("what is pressed while it is away says what became of it, and what was typed stays", async () => {
  await page.goto(s.at("apps/web?tab=settings"));
  await page.getByLabel("Releases to keep").fill("8");
  await s.watch.expecting(expected, async () => {
    await s.stack.kill();
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page
      .getByText("Nothing was changed.")
      .or(page.getByText("Whether it was done is not known"))
      .first()
      .waitFor();
    expect(await page.getByLabel("Releases to keep").inputValue()).toBe("8");
    await s.stack.begin();
    await interrupted().waitFor({ state: "detached" });
  });
  expect(await page.getByLabel("Releases to keep").inputValue()).toBe("8");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await eventually("it to be saved", async () => {
    const a = await s.stack.api<{ retention: number }>("GET", "/v1/workspaces/default/apps/web");
    return a.retention === 8;
  });
  s.calm();
});

test("a deployment whose start nobody heard of is not started twice", async () => {
  await page.goto(s.at("apps/web"));
  const button = page.getByRole("button", { name: "Deploy latest" }).first();
  await button.waitFor();
  // It comes in, and its answer is lost, and so are those to its repeats.
  const tries = 3;
  let ids: string[] = [];
  await page.route("**/apps/web/deployments", async (route) => {
    if (route.request().method() !== "POST") return route.continue();
    ids = [...ids, (route.request().postDataJSON() as { requestId: string }).requestId];
    if (ids.length > tries) return route.continue();
    await route.fetch();
    return route.abort("connectionreset");
  });
  await s.watch.expecting(expected, async () => {
    await button.click();
    await page.getByText("Whether it was done is not known").waitFor();
  });
  await button.click();
  await page.waitForURL(/\/deployments\/\d+$/);
  expect(ids).toEqual(Array.from({ length: tries + 1 }, () => ids[0]));
  await page.unroute("**/apps/web/deployments");
  const { deployments } = await s.stack.api<{ deployments: { number: number }[] }>(
    "GET",
    "/v1/workspaces/default/apps/web/deployments",
  );
  expect(deployments[0]?.number).toBe(Number(/\d+$/.exec(page.url())?.[0]));
  expect(deployments.length).toBe(3);
  s.calm();
});

test("the log of a deployment that a kill interrupts goes on with its next attempt", async () => {
  const slow = {
    name: "slow",
    stage: "POST_SOURCE_CONTROL",
    command: "for i in $(seq 3000); do echo part $i; sleep 0.2; done",
  };
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks: [slow] });
  await page.goto(s.at("apps/web"));
  await page.getByRole("button", { name: "Deploy latest" }).first().click();
  await page.waitForURL(/\/deployments\/4$/);
  await page.getByText("part 5", { exact: true }).waitFor();
  const numbers = async () => (await page.locator(".line-number").allTextContents()).map(Number);
  await s.watch.expecting(expected, async () => {
    await s.stack.kill();
    await interrupted().waitFor();
    const before = Math.max(...(await numbers()));
    await s.stack.begin();
    await eventually("the log to go on", async () => Math.max(...(await numbers())) > before + 5, 120_000);
    await page.getByText("attempt 2").first().waitFor();
    const shown = await numbers();
    expect(shown).toEqual(shown.map((_, i) => (shown[0] ?? 0) + i));
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByText("End of the log: cancelled.").waitFor();
  });
  s.calm();
});
