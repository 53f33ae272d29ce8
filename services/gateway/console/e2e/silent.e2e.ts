// What a person is told where it is easy to say nothing: a repository that is new, a refresh that comes too
// soon, a Bitbucket that refuses, a deployment that was cancelled, one that went back.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
});

afterAll(() => s?.end());

const listAge = 30_000; // from then on a list is fetched anew

test("after connecting, the next step is there", async () => {
  await connect(s.stack, s.context);
  await s.visit("settings/integrations?bitbucket=connected");
  await page.getByText("Bitbucket is connected.").waitFor();
  await check(page, "integrations-next-step");
  await page.getByRole("main").getByRole("link", { name: "New app" }).click();
  await page.waitForURL("**/apps/new");
  s.calm();
});

test("a new repository shows up by itself, and a refresh that comes too soon says when it may", async () => {
  const { fetchTime } = await eventually("the list", async () => {
    const list = await s.stack.api<{ fetchTime?: string; totalSize: number }>(
      "GET",
      "/v1/workspaces/default/repositories?pageSize=1",
    );
    return list.totalSize > 0 && { fetchTime: Date.parse(list.fetchTime ?? "") };
  });
  await s.stack.control("PUT", "repositories/acme/brand-new", {
    name: "Brand new",
    permissions: { "jane-dev": "admin" },
  });
  await eventually("a list that is old", async () => Date.now() - fetchTime > listAge + 1000);
  await page.reload();
  const field = page.getByRole("combobox", { name: "Repository" });
  await field.click();
  await field.fill("brand-new");
  await page.getByRole("option", { name: /Brand new/ }).waitFor({ timeout: 20_000 });
  await page.keyboard.press("Escape");
  await expect.poll(() => page.getByText("a newer list is being fetched").count()).toBe(0);

  await page.getByRole("button", { name: "Refresh" }).click();
  const soon = page.getByText("The list was fetched less than a minute ago. Refresh fetches it again");
  // The first may still be allowed; the second comes within its minute.
  await page.getByRole("button", { name: "Refresh" }).click();
  await soon.waitFor();
  await check(page, "new-app-refresh-too-soon");
  s.calm();
});

test("a Bitbucket that refuses to list branches is not a repository without any", async () => {
  await s.stack.control("POST", "faults", {
    route: "GET /2.0/repositories/{workspace}/{repository}/refs/branches",
    status: 429,
    body: "no",
    headers: { "Retry-After": "40" },
  });
  await page.reload();
  await s.watch.expecting(/429|503/, async () => {
    const field = page.getByRole("combobox", { name: "Repository" });
    await field.click();
    await page.getByRole("option", { name: /Notes/ }).click();
    await page
      .getByText(/limit of calls per hour/)
      .first()
      .waitFor();
    await page
      .getByText(/Again in|Again in a moment/)
      .first()
      .waitFor();
    expect(await page.getByText("The repository has no branch yet").count()).toBe(0);
    await check(page, "new-app-branches-refused");
  });
  await s.stack.control("DELETE", "faults");
  s.calm();
});

test("stages of a cancelled deployment were stopped; a rollback needs no source", async () => {
  await createApp(s.stack, "web", "acme/web", true);
  await s.stack.push("acme/web", "main", "The second");
  await eventually("#2", async () => {
    const app = await s.stack.api<{ live?: { number: number } }>("GET", "/v1/workspaces/default/apps/web");
    return app.live?.number === 2;
  });
  await s.stack.api("POST", "/v1/workspaces/default/apps/web:rollback", { deployment: 1 });
  await s.visit("apps/web/deployments/3");
  const rail = page.getByRole("list", { name: "Stages" });
  await page.getByText("Completed").first().waitFor();
  await rail.getByRole("listitem").filter({ hasText: "Fetch and check out" }).getByText("not needed").waitFor();
  await check(page, "deployment-rolled-back");

  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: [{ name: "slow", stage: "POST_SOURCE_CONTROL", command: "sleep 600" }],
  });
  const { number } = await s.stack.api<{ number: number }>("POST", "/v1/workspaces/default/apps/web/deployments", {});
  await s.visit(`apps/web/deployments/${number}`);
  await rail.getByText("slow").waitFor();
  await s.stack.api("POST", `/v1/workspaces/default/apps/web/deployments/${number}:cancel`, {});
  await page.getByText("Cancelled").first().waitFor();
  for (const stage of ["After fetching", "Switch the release"])
    await rail.getByRole("listitem").filter({ hasText: stage }).getByText("stopped").first().waitFor();
  await check(page, "deployment-cancelled-stages");
  s.calm();
});
