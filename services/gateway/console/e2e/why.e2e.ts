// "Why did it not deploy?": asked where something did not, answered in one sentence with the way on.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import answers from "../test/why.json";
import { check, connect, narrow, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
});

afterAll(() => s?.end());

test("a push that auto-deploy did not deploy says so, and the button switches it on", async () => {
  await createApp(s.stack, "web", "acme/web", true);
  await s.stack.push("acme/web", "main", "The first");
  await eventually("#1 live", async () => {
    const app = await s.stack.api<{ live?: { number: number } }>("GET", "/v1/workspaces/default/apps/web");
    return app.live !== undefined;
  });
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { autoDeploy: false });
  await s.stack.push("acme/web", "main", "The second");
  await eventually("the push is seen", async () => {
    const app = await s.stack.api<{ sync?: { reason?: string } }>("GET", "/v1/workspaces/default/apps/web");
    return app.sync?.reason === "AUTO_DEPLOY_OFF";
  });
  await s.visit("apps/web");
  await page.getByLabel("How the branch stands").getByRole("link", { name: "Why?" }).click();
  await page.waitForURL("**/why?commit=*");
  const answer = page.getByRole("region", { name: "The answer" });
  await answer
    .getByRole("heading", { name: /[Aa]uto-deploy/ })
    .first()
    .waitFor();
  expect(await answer.getByRole("list", { name: "What happened" }).getByRole("listitem").count()).toBeGreaterThan(1);
  await check(page, "why-auto-deploy-off");
  await answer.getByRole("button", { name: "Switch auto-deploy on" }).first().click();
  await eventually("auto-deploy is on", async () => {
    const app = await s.stack.api<{ autoDeploy: boolean }>("GET", "/v1/workspaces/default/apps/web");
    return app.autoDeploy;
  });
  s.calm();
});

test("a commit that nobody has seen is answered in words", async () => {
  await s.visit("why");
  await page.getByLabel("Which").fill("0123456789abcdef0123456789abcdef01234567");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.getByRole("region", { name: "The answer" }).getByRole("heading").first().waitFor();
  await check(page, "why-unseen");
  s.calm();
});

// The answers that the services gave where the causes are made (services/allinone/e2e, TestWhy).
test.each(["failed hook", "delivery lost", "access revoked, not seen", "superseded", "app deleted"] as const)(
  "an answer is readable, wide and narrow: %s",
  async (name) => {
    await page.route("**/v1/workspaces/default/why?*", (route) => route.fulfill({ json: answers[name] }));
    await s.visit(`why?commit=${"0123456789".repeat(4)}&app=${name.replaceAll(/[^a-z]/g, "")}`);
    const answer = page.getByRole("region", { name: "The answer" });
    await answer.getByRole("heading", { level: 2 }).waitFor();
    const shot = `why-${name.replaceAll(/[^a-z]+/g, "-")}`;
    await check(page, shot);
    await narrow(page, shot);
    await page.unroute("**/v1/workspaces/default/why?*");
    s.calm();
  },
);
