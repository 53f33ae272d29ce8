// What a person is told where it is easy to say nothing: a repository that is new, a refresh that comes too
// soon, a Bitbucket that refuses, a deployment that was cancelled, one that went back. What needs no list
// of repositories comes while the list grows old.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { check, connect, open, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
});

afterAll(() => s?.end());

const listAge = 30_000; // from then on a list is fetched anew

test("the printed line for another link runs as it stands", async () => {
  const line = /For a link that signs you in: (.*)/.exec(s.stack.printed())?.[1] ?? "";
  const { stdout } = await promisify(execFile)("sh", ["-c", line], { env: {} });
  const visitor = await open(s.browser);
  const there = await visitor.newPage();
  await there.goto(stdout.trim());
  await there.getByRole("heading", { name: "Connect Bitbucket, then deploy" }).waitFor();
  await visitor.close();
});

test("without an OAuth consumer, why nothing can be connected stands beside Connect", async () => {
  // This one has a consumer: the answer is the product's with none.
  const answers = "**/v1/workspaces/default/integrations/bitbucket";
  await page.route(answers, async (route) => {
    const answer = await route.fetch();
    const integration = (await answer.json()) as { setup: object };
    await route.fulfill({
      response: answer,
      json: { ...integration, setup: { ...integration.setup, consumerConfigured: false } },
    });
  });
  await page.goto(s.at("settings/integrations"));
  const why = "There is no OAuth consumer yet: see Setup below.";
  const connect = page.getByRole("button", { name: "Connect", exact: true });
  await page.getByRole("main").locator(".actions", { has: connect }).locator(".soft", { hasText: why }).waitFor();
  expect(await connect.getAttribute("aria-disabled")).toBe("true");
  const hint = await connect.evaluate(
    (b) => document.getElementById(b.getAttribute("aria-describedby") ?? "")?.textContent,
  );
  expect(hint).toBe(why);
  await page.getByText("Neither is set yet.").waitFor(); // and the setup is open
  await check(page, "integrations-no-consumer");
  await page.unroute(answers);
  s.calm();
});

test("after connecting, the next step is there", async () => {
  await connect(s.stack, s.context);
  await s.visit("settings/integrations?bitbucket=connected");
  await page.getByText("Bitbucket is connected.").waitFor();
  await check(page, "integrations-next-step");
  await page.getByRole("main").getByRole("link", { name: "New app" }).click();
  await page.waitForURL("**/apps/new");
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
  await page.goto(s.at("apps/new"));
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

test("a form half filled is not left unasked", async () => {
  const field = page.getByRole("combobox", { name: "Repository" });
  await field.click();
  await page.getByRole("option", { name: /Brand new/ }).click();
  const asked = page.getByRole("alertdialog", { name: "Leave without saving?" });
  await page.getByRole("link", { name: "Activity" }).click();
  await asked.getByRole("button", { name: "Stay" }).click();
  await asked.waitFor({ state: "detached" });
  expect(await field.inputValue()).toBe("acme/brand-new");
  expect(new URL(page.url()).pathname).toBe("/w/default/apps/new");
  await page.getByRole("link", { name: "Activity" }).click();
  await asked.getByRole("button", { name: "Leave" }).click();
  const activity = page.getByRole("heading", { name: "Activity" });
  await activity.waitFor();
  await s.visit("apps/new"); // nothing is filled in, so nothing is asked
  await field.waitFor();
  await page.getByRole("link", { name: "Activity" }).click();
  await activity.waitFor();
  await page.goBack();
  await field.waitFor();
  s.calm();
});

test("what to serve is suggested, and where it could not be looked for, that is said", async () => {
  const source = { route: "GET /2.0/repositories/{workspace}/{repository}/src/{commit}/" };
  await s.stack.control("POST", "faults", { ...source, status: 503, body: "no" });
  const field = page.getByRole("combobox", { name: "Repository" });
  const choose = async (name: RegExp) => {
    await field.click();
    await page.getByRole("option", { name }).click();
  };
  const said = page.getByRole("status", { name: "What could be served" });
  await s.watch.expecting(/503/, async () => {
    await choose(/^Docs/);
    await said.getByText("Devpilot could not look into the repository, so it suggests nothing:").waitFor();
    expect(await page.getByLabel("Directory to serve").isEnabled()).toBe(true); // by hand it goes on
    await check(page, "new-app-not-looked");
  });
  await s.stack.control("DELETE", "faults");
  await choose(/^API/);
  await said.getByText("Nothing to serve was found by its name:").waitFor();
  await choose(/^Web/);
  await said.getByText("The repository has index.html.").waitFor();
  const serve = said.getByRole("button", { name: "Serve the whole repository" });
  await serve.click();
  expect(await page.getByLabel("Directory to serve").inputValue()).toBe(".");
  expect(await serve.getAttribute("aria-pressed")).toBe("true");
  await check(page, "new-app-suggested");
  await serve.click(); // taken back
  expect(await page.getByLabel("Directory to serve").inputValue()).toBe("");
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
