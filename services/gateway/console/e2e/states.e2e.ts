// What goes wrong and what a person is told: handshakes that do not come back, lists that are not
// whole, deployments that wait, fail or are overtaken, tokens that are refused.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, grant, narrow, open, scene, signIn, toConsent, visit, type Scene } from "./browser";
import { duration } from "../src/lib/time";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
});

afterAll(() => s?.end());

const deploy = (app: string) =>
  s.stack.api<{ number: number }>("POST", `/v1/workspaces/default/apps/${app}/deployments`, {});
const state = async (app: string, number: number) =>
  (await s.stack.api<{ state: string }>("GET", `/v1/workspaces/default/apps/${app}/deployments/${number}`)).state;

test("a workspace is made on purpose, and the switcher leads to it", async () => {
  await s.stack.api("POST", "/v1/workspaces", { workspaceId: "acme-inc" });
  await s.visit("apps");
  const switcher = page.getByRole("combobox", { name: "Workspace" });
  await expect.poll(() => switcher.getByRole("option").count()).toBe(2);
  await switcher.selectOption("acme-inc");
  await page.waitForURL("**/w/acme-inc/apps");
  await page.getByRole("heading", { name: "Connect Bitbucket, then deploy" }).waitFor();
  await check(page, "workspace-second");
  await page.goto(s.stack.url); // comes back to the one used last
  await page.waitForURL("**/w/acme-inc/apps");
  await switcher.selectOption("default");
  await page.waitForURL("**/w/default/apps");
  s.calm();
});

test("setup links to the consumers of a Bitbucket workspace", async () => {
  await s.visit("settings/integrations");
  await page.getByText("Setup: the OAuth consumer on Bitbucket").click();
  const field = page.getByRole("textbox", { name: "Bitbucket workspace" });
  await field.fill("acme");
  expect(await page.getByRole("link", { name: "Open its OAuth consumers" }).getAttribute("href")).toBe(
    `${s.stack.site}/acme/workspace/settings/api`,
  );
  await field.fill("../evil");
  await page.getByText("letters, digits, hyphens, underscores and dots").waitFor();
  expect(await page.getByRole("link", { name: "Open its OAuth consumers" }).count()).toBe(0);
  await check(page, "integrations-setup");
  await narrow(page, "integrations-setup");
  s.calm();
});

test("a handshake without an answer says after two minutes what to compare", async () => {
  // The page's clock is the test's; the server's stays.
  const context = await open(s.browser);
  await signIn(s.stack, context);
  const waiting = await context.newPage();
  await waiting.clock.install();
  await waiting.goto(s.at("settings/integrations"));
  await toConsent(s.stack, waiting);
  await waiting.goto(s.at("settings/integrations"));
  await waiting.getByText("A connection waits for Bitbucket's answer.").waitFor();
  await check(waiting, "handshake-pending");
  await waiting.clock.fastForward("02:05");
  await waiting.getByText("Bitbucket has not answered for 2 minutes.").waitFor();
  await waiting.getByText(`${s.stack.url}/oauth/bitbucket/callback`).first().waitFor();
  await check(waiting, "handshake-unanswered");
  await narrow(waiting, "handshake-unanswered");
  await waiting.clock.fastForward("09:00"); // it has run out
  await expect.poll(() => waiting.getByText("Bitbucket has not answered for 2 minutes.").count()).toBe(0);
  await context.close();
});

test("a consent that another browser finishes, or that comes twice, connects nothing and says so", async () => {
  await s.visit("settings/integrations");
  await toConsent(s.stack, page);
  const consent = page.url();
  const other = await open(s.browser);
  await signIn(s.stack, other);
  const thief = await other.newPage();
  await thief.goto(consent);
  const account = thief.getByRole("button", { name: /jane-dev/ });
  if (await account.isVisible()) await account.click();
  await thief.getByRole("button", { name: "Grant access" }).click();
  await thief.waitForURL(/reason=HANDSHAKE_MISMATCH/);
  await thief
    .getByText("The connection was finished by another browser or person than the one who began it.")
    .waitFor();
  await check(thief, "handshake-mismatch");
  await other.close();

  await s.visit("settings/integrations");
  let callback = "";
  page.on("request", (r) => {
    if (r.url().includes("/oauth/bitbucket/callback")) callback = r.url();
  });
  await grant(s.stack, page);
  await page.getByText("Bitbucket is connected.").waitFor();
  // The answer again, as the Back button may send it.
  await s.watch.expecting(/409/, async () => {
    await page.goto(callback);
    await page.getByRole("heading", { name: "Bitbucket is not connected" }).waitFor();
    await check(page, "handshake-used");
  });
  // What was connected stays.
  await s.visit("settings/integrations");
  await page.getByText("@jane-dev").waitFor();
  s.calm();
});

test("a Bitbucket workspace that fails to list is named, and the others are there", async () => {
  // In a workspace of its own: nothing was listed there before.
  await s.stack.api("POST", "/v1/workspaces", { workspaceId: "partial" });
  const { workspaces } = (await s.stack.control("GET", "state")) as { workspaces: { uuid: string; slug: string }[] };
  const acme = workspaces.find((w) => w.slug === "acme")?.uuid.replace(/[{}]/g, "");
  await s.stack.control("POST", "faults", { path: `/2.0/repositories/%7B${acme}%7D`, status: 500, body: "no" });
  await connect(s.stack, s.context, "partial");
  await page.goto(`${s.stack.url}/w/partial/apps/new`);
  await page.locator(".partial").getByText("acme").first().waitFor({ timeout: 60_000 });
  await page.getByRole("combobox", { name: "Repository" }).click();
  await page.getByRole("option", { name: /Notes/ }).waitFor();
  await page.keyboard.press("Escape");
  await check(page, "new-app-partial");
  await narrow(page, "new-app-partial");
  await s.stack.control("DELETE", "faults");
  s.calm();
});

test("a deployment that cannot reach Bitbucket waits and says for what", async () => {
  await eventually("the whole list", async () => {
    await createApp(s.stack, "web", "acme/web", true);
    return true;
  });
  await s.stack.control("POST", "faults", { route: "git", status: 503, body: "no" });
  const { number } = await deploy("web");
  await s.visit(`apps/web/deployments/${number}`);
  await page.getByText("Waiting.").waitFor();
  await page.getByText("Bitbucket does not answer as it should; Devpilot tries again.").first().waitFor();
  await expect.poll(() => page.title()).toContain("◌"); // between two tries
  await check(page, "deployment-waiting");
  await narrow(page, "deployment-waiting");
  await s.stack.control("DELETE", "faults");
  await page.getByText("End of the log: completed.").waitFor({ timeout: 90_000 });
  // How long it took is how long it worked; the waiting before its last attempt is none of it.
  const d = await s.stack.api<{ startTime: string; endTime: string; stages: { startTime: string }[] }>(
    "GET",
    `/v1/workspaces/default/apps/web/deployments/${number}`,
  );
  const began = Date.parse(d.stages[0]?.startTime ?? "");
  expect(began).toBeGreaterThan(Date.parse(d.startTime));
  const worked = duration(Date.parse(d.endTime) - began);
  await page.locator(".subline", { hasText: `took ${worked}` }).waitFor();
  s.calm();
});

test("a deployment that failed names the step, its last lines and what to try", async () => {
  await s.stack.control("POST", "faults", { kind: "ip-allow-list" });
  const { number } = await deploy("web");
  await s.visit(`apps/web/deployments/${number}`);
  await page.getByRole("heading", { name: "Failed at: Fetch and check out" }).waitFor();
  await page.getByText("an admin must whitelist your IP").first().waitFor();
  await page.getByText("On Bitbucket, allow this server's address in the IP allow-list").waitFor();
  await page.getByLabel("Last lines of the failed step").getByText("Fetching branch main of acme/web.").waitFor();
  await expect.poll(() => page.title()).toBe(`✕ #${number} web · Devpilot`);
  await check(page, "deployment-failed");
  await narrow(page, "deployment-failed");
  await page.getByRole("link", { name: "shown in the log" }).click();
  expect(new URL(page.url()).hash).toMatch(/^#L\d+/);
  await page.locator(".line.target").first().waitFor();
  await s.stack.control("DELETE", "faults");
  await s.visit("apps/web");
  await page.getByRole("heading", { name: "Newest deployment" }).waitFor();
  await check(page, "app-newest-failed");
  s.calm();
});

test("what a newer push overtook says by what", async () => {
  const push = (message: string) =>
    s.stack.control("POST", "repositories/acme/web/pushes", {
      account: "jane-dev",
      changes: [{ branch: "main", commits: [{ message, files: { "page.html": message } }] }],
    });
  // It runs until it is told to end, whatever the machine's pace.
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: [{ name: "long", stage: "PRE_SOURCE_CONTROL", command: "sleep 600" }],
  });
  const first = await deploy("web");
  await eventually("it to run", async () => (await state("web", first.number)) === "PROCESSING");
  await push("The second");
  await eventually("the push to wait", async () => (await state("web", first.number + 1)) === "PENDING");
  await push("The third");
  await eventually(
    "the older push to be overtaken",
    async () => (await state("web", first.number + 1)) === "SUPERSEDED",
  );
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks: [] });
  await s.stack.api("POST", `/v1/workspaces/default/apps/web/deployments/${first.number}:cancel`, {});
  await s.visit(`apps/web/deployments/${first.number + 1}`);
  await page.getByText("Superseded").first().waitFor();
  await page.getByRole("link", { name: `#${first.number + 2}` }).waitFor();
  await check(page, "deployment-superseded");
  await s.visit("apps/web?tab=deployments&state=SUPERSEDED");
  await page
    .locator("tbody")
    .getByText(`by #${first.number + 2}`)
    .waitFor();
  await s.visit(`apps/web/deployments/${first.number + 2}`);
  await page.getByText("End of the log:").waitFor({ timeout: 60_000 });
  s.calm();
});

test("a push that came while auto-deploy was off is named until it is live", async () => {
  const push = (message: string) =>
    s.stack.control("POST", "repositories/acme/web/pushes", {
      account: "jane-dev",
      changes: [{ branch: "main", commits: [{ message, files: { "page.html": message } }] }],
    });
  // Another app keeps the repository's webhook, which tells of the push; without it polling would, much later.
  await createApp(s.stack, "web-releases", "acme/web", false, "release/*");
  await s.stack.api("POST", "/v1/workspaces/default/apps/web:rollback", { pauseAutoDeploy: true });
  await s.visit("apps/web");
  const stands = page.getByLabel("How the branch stands");
  await stands.getByText("Rolled back").waitFor({ timeout: 60_000 });
  await check(page, "app-rolled-back");
  await push("while it is off");
  await stands.getByText("The admin token switched it off with a rollback").waitFor({ timeout: 90_000 });
  await page.locator(".switch").first().click();
  await stands.getByText("nobody has deployed it").waitFor({ timeout: 30_000 });
  await check(page, "app-behind");
  await narrow(page, "app-behind");
  await s.visit("apps");
  const row = page.getByRole("listitem").filter({ has: page.getByRole("link", { name: "web", exact: true }) });
  await row.getByText("Behind", { exact: true }).waitFor();
  await row.getByText("nobody has deployed it").waitFor();
  await check(page, "apps-behind");
  await narrow(page, "apps-behind");
  await s.visit("apps?state=in-sync");
  await page.getByText("No app is in this state.").waitFor();
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.getByText("End of the log: completed.").waitFor({ timeout: 90_000 });
  await s.visit("apps/web");
  await stands.getByText("In sync").waitFor();
  await s.stack.api("DELETE", "/v1/workspaces/default/apps/web-releases");
  s.calm();
});

test("the webhook is repaired, its secret rotated, and a delivery considered again", async () => {
  await s.visit("apps/web");
  await page.getByText(/last verified delivery/).waitFor();
  await page.getByRole("button", { name: "Repair" }).click();
  await page.getByText("The webhook is as it should be on Bitbucket.").waitFor();
  await page.getByRole("button", { name: "Rotate secret…" }).click();
  const dialog = page.getByRole("alertdialog");
  await check(page, "webhook-rotate");
  await dialog.getByRole("button", { name: "Rotate the secret" }).click();
  await page.getByText("There is a new secret.").waitFor();
  await check(page, "app-webhook");
  await narrow(page, "app-webhook");
  await page.getByRole("link", { name: "Deliveries" }).click();
  await page
    .getByRole("button", { name: /^Replay (?!several)/ })
    .first()
    .click();
  await page.getByText(/is considered again/).waitFor();
  await page.getByText("considered again once").waitFor();
  await check(page, "app-deliveries-replayed");
  await narrow(page, "app-deliveries-replayed");
  s.calm();
});

test("a member sees everything and is told whom to ask", async () => {
  const key = await s.stack.api<{ secret: string }>("POST", "/v1/workspaces/default/apiKeys", {
    label: "a member",
    role: "MEMBER",
  });
  const context = await open(s.browser, { extraHTTPHeaders: { Authorization: `Bearer ${key.secret}` } });
  const member = await context.newPage();
  for (const [path, button, name] of [
    ["settings/integrations", "Refresh Token", "member-integrations"],
    ["apps/web", "Repair", "member-app"],
    ["apps/web?tab=deliveries", /^Replay/, "member-deliveries"],
    ["apps/web?tab=settings", "Delete web…", "member-settings"],
  ] as const) {
    await visit(member, s.at(path));
    const closed = member.getByRole("button", { name: button }).first();
    await closed.waitFor();
    expect(await closed.getAttribute("aria-disabled"), name).toBe("true");
    expect(await closed.getAttribute("title"), name).toBe(
      "You are a member of Default. Ask one of its owners or admins to do this.",
    );
    await closed.focus(); // it stays in the way of the Tab key, and says why it does nothing
    expect(await closed.evaluate((b) => b === document.activeElement), name).toBe(true);
    await closed.press("Enter");
    expect(await member.getByRole("alertdialog").count(), name).toBe(0);
    await check(member, name);
  }
  await visit(member, s.at("apps"));
  await member.getByText("Ask one of its owners or admins to do this.").waitFor();
  // What members may do is open.
  await visit(member, s.at("apps/web"));
  await member.getByRole("button", { name: "Deploy latest" }).click();
  await member.waitForURL(/\/deployments\/\d+$/);
  await member.getByText("End of the log:").waitFor({ timeout: 60_000 });
  await context.close();
});

test("a connection that Bitbucket granted too little to must be made again", async () => {
  await s.stack.control("POST", "faults", {
    route: "/site/oauth2/access_token",
    status: 200,
    body: JSON.stringify({
      access_token: "short",
      refresh_token: "shorter",
      scopes: "account repository",
      token_type: "bearer",
      expires_in: 7200,
    }),
  });
  await eventually(
    "the connection to be refused",
    async () => {
      await s.stack.control("POST", "tokens/expire", {});
      return s.stack.api<{ state: string }>("POST", "/v1/workspaces/default/integrations/bitbucket:refresh", {}).then(
        (i) => i.state === "RECONNECT_REQUIRED",
        async () =>
          (await s.stack.api<{ state: string }>("GET", "/v1/workspaces/default/integrations/bitbucket")).state ===
          "RECONNECT_REQUIRED",
      );
    },
    90_000,
  );
  // What was granted before ends too: the next refresh would be granted all with it, and mend the connection.
  await s.stack.control("POST", "tokens/expire", { refresh: true });
  await s.stack.control("DELETE", "faults");
  await s.visit("settings/integrations");
  await page.getByText("Bitbucket must be connected again.").waitFor();
  await page.getByText("Missing permission: webhook.").waitFor();
  await expect.poll(() => page.title()).toBe("▲ Must be connected again · Integrations · Devpilot");
  await check(page, "integrations-reconnect");
  await narrow(page, "integrations-reconnect");
  await s.visit("apps/web");
  await page.getByText("Auto-deploy is paused.").waitFor();
  await check(page, "app-paused");
  await s.visit("apps/new");
  await page.getByRole("heading", { name: "Connect Bitbucket again first" }).waitFor();
  await s.visit("settings/integrations");
  await grant(s.stack, page, "Reconnect");
  await page.getByText("Bitbucket is connected.").waitFor();
  await eventually(
    "the banner to go",
    async () => (await page.getByText("Bitbucket must be connected again.").count()) === 0,
  );
  s.calm();
});

test("deleting an app names what goes, and it is gone", async () => {
  await s.visit("apps/web?tab=settings");
  await page.getByRole("button", { name: "Delete web…" }).click();
  const dialog = page.getByRole("alertdialog");
  await dialog.getByText("the history and every release on server default").waitFor();
  await check(page, "app-delete");
  await narrow(page, "app-delete");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Delete web…" }).click();
  await dialog.getByRole("button", { name: "Delete web", exact: true }).click();
  await page.waitForURL("**/w/default/apps");
  await page.getByRole("heading", { name: "No apps yet" }).waitFor();
  s.calm();
});
