// The console's way through a day: connect, create an app, push, watch, mend, remove. In real
// Chromium, against the product as it ships; `make test-console` builds both first.
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { BrowserContext, Locator, Page } from "playwright-core";
import { check, focused, narrow, scene, type Scene, type Watch } from "./browser";
import { eventually, type Stack } from "./stack";

const repository = "team-07/service-07-123";
const app = "service-07-123";

let s: Scene;
let stack: Stack;
let context: BrowserContext;
let page: Page;
let watch: Watch;

beforeAll(async () => {
  s = await scene("ten-thousand", false);
  ({ stack, context, page, watch } = s);
});

afterAll(async () => {
  await s?.end();
});

const at = (path: string) => s.at(path);
/** The rows of the open list, not those of the workspace switcher. */
const options = (p: Page, by?: { name: string | RegExp }) => p.getByRole("listbox").getByRole("option", by);
const calm = () => s.calm();

test("a visitor without a session signs in and comes back", async () => {
  await watch.expecting(/401/, async () => {
    await s.visit("apps");
    await page.waitForURL("**/sign-in?next=*");
  });
  await check(page, "sign-in");
  await narrow(page, "sign-in");
  await watch.expecting(/401/, async () => {
    await page.getByLabel("Admin token or code").fill("not the token");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    await check(page, "sign-in-refused");
  });
  await page.getByLabel("Admin token or code").fill(stack.adminToken);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/w/default/apps");
  await page.getByRole("heading", { name: "Connect Bitbucket, then deploy" }).waitFor();
  await check(page, "apps-not-connected");
  await narrow(page, "apps-not-connected");
  calm();
});

test("a person cancels on Bitbucket's page and is told so", async () => {
  await page.getByRole("link", { name: "Open Integrations" }).click();
  await page.getByRole("heading", { name: "Bitbucket", exact: true }).waitFor();
  await page.getByText("Setup: the OAuth consumer on Bitbucket").click();
  await check(page, "integrations-not-connected");
  await narrow(page, "integrations-not-connected");
  await page.getByRole("button", { name: "Connect" }).click();
  await page.waitForURL(`${stack.site}/**`);
  const account = page.getByRole("button", { name: /jane-dev/ });
  if (await account.isVisible()) await account.click();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.waitForURL("**/settings/integrations?*");
  await page.getByText("You cancelled on Bitbucket, so nothing was connected.").waitFor();
  await check(page, "integrations-cancelled");
  await page.getByRole("button", { name: "Dismiss" }).click();
  expect(new URL(page.url()).search).toBe("");
  calm();
});

test("what comes back expired or mismatched is said in words", async () => {
  for (const [reason, words] of [
    ["HANDSHAKE_EXPIRED", "The connection took too long, so nothing was connected."],
    ["HANDSHAKE_MISMATCH", "The connection was finished by another browser or person than the one who began it."],
    ["<script>alert(1)</script>", "Bitbucket could not be connected."],
  ] as const) {
    await s.visit(`settings/integrations?${new URLSearchParams({ bitbucket: "failed", reason })}`);
    await page.getByText(words).waitFor();
  }
  calm();
});

test("a person connects Bitbucket through its consent page", async () => {
  await s.visit("settings/integrations");
  await page.getByRole("button", { name: "Connect" }).click();
  await page.waitForURL(`${stack.site}/**`);
  const account = page.getByRole("button", { name: /jane-dev/ });
  if (await account.isVisible()) await account.click();
  await page.getByRole("button", { name: "Grant access" }).click();
  await page.waitForURL("**/settings/integrations?bitbucket=connected");
  await page.getByText("Bitbucket is connected.").waitFor();
  await page.getByText("@jane-dev").waitFor();
  await check(page, "integrations-just-connected");
  await page.getByRole("button", { name: "Dismiss" }).click();
  await expect.poll(() => page.title()).toBe("● Connected · Integrations · Devpilot");
  await check(page, "integrations-connected");
  await narrow(page, "integrations-connected");
  calm();
});

test("ten thousand repositories are searched as one types", async () => {
  await s.visit("apps");
  await page.getByRole("heading", { name: "No apps yet" }).waitFor();
  await check(page, "apps-empty");
  await page.keyboard.press("n");
  await page.waitForURL("**/apps/new");
  const field = page.getByRole("combobox", { name: "Repository" });
  await field.waitFor();
  await eventually(
    "the whole list",
    async () => (await page.getByText(/^10,000 repositories, fetched/).count()) > 0,
    90_000,
  );
  await check(page, "new-app");
  await field.click();
  await options(page).first().waitFor();
  expect(await options(page).count()).toBeLessThan(40);
  await page.locator(".popover-footer").getByText("10,000 repositories").waitFor();
  await check(page, "new-app-repositories");

  await field.fill("service-07-123");
  await page.locator(".option[data-focused]", { hasText: "service-07-123" }).waitFor();
  await field.press("Enter");
  await expect.poll(() => field.inputValue()).toBe(repository);
  calm();
});

test("the form says what is missing, then saves and deploys", async () => {
  const id = page.getByLabel("App id");
  expect(await id.inputValue()).toBe(app);
  await id.fill("Not A Slug");
  await page.getByRole("button", { name: "Save and deploy" }).click();
  await page.getByText("Lower-case letters, digits and hyphens").waitFor();
  await id.fill(app);
  // A pattern has no latest commit to deploy; unticked, the default branch is back.
  const pattern = page.getByLabel("Watch a pattern of branches instead of one");
  await pattern.check();
  await page.getByLabel("Pattern of branches", { exact: true }).fill("release/*");
  await page.getByText("Each push to a branch that matches").waitFor();
  expect(await page.getByRole("button", { name: "Save and deploy" }).getAttribute("title")).toContain(
    "A pattern has no latest commit",
  );
  await check(page, "new-app-pattern");
  await pattern.uncheck();
  const branch = page.getByRole("combobox", { name: "Branch" });
  await expect.poll(() => branch.inputValue()).toBe("main");
  await branch.click();
  await options(page, { name: /main/ }).first().waitFor();
  await check(page, "new-app-branches");
  await branch.press("Enter");
  await page.getByText(`Devpilot will register a webhook on ${repository}.`).waitFor();
  await check(page, "new-app-filled");
  await narrow(page, "new-app-filled");
  await page.getByRole("button", { name: "Save and deploy" }).click();
  await page.waitForURL(`**/apps/${app}/deployments/1`);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  await expect.poll(() => page.title()).toBe(`✓ #1 ${app} · Devpilot`);
  await check(page, "deployment-completed");
  await narrow(page, "deployment-completed");
  calm();
});

test("the log searches, links to a line and downloads", async () => {
  const lines = page.locator(".line-number");
  const count = await lines.count();
  expect(count).toBeGreaterThan(2);
  await lines.nth(1).click();
  expect(new URL(page.url()).hash).toBe("#L2");
  await page.reload();
  await page.locator(".line.target").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("main");
  await page.getByText(/of \d+ lines|no line/).waitFor();
  expect(await page.getByRole("searchbox", { name: "Search the log" }).inputValue()).toBe("main");
  await expect.poll(() => new URL(page.url()).searchParams.get("q")).toBe("main");
  expect(new URL(page.url()).hash).toBe("#L2");
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: "Download" }).click();
  expect((await download).suggestedFilename()).toBe(`${app}-1.log`);
  await page.getByRole("searchbox", { name: "Search the log" }).fill("");
  calm();
});

test("a push shows up by itself and its log is followed live", async () => {
  await s.visit(`apps/${app}`);
  await page.getByRole("heading", { name: "Live", exact: true }).waitFor();
  await page.locator(".health").getByText("Active").waitFor();
  const second = await context.newPage(); // shares the one connection
  await second.goto(at("apps"));
  await second.getByRole("link", { name: app, exact: true }).waitFor();
  await stack.push(repository, "main", "Say hello <b>\u202eolleh</b>");
  await page.locator("tbody").getByRole("link", { name: "#2", exact: true }).click({ timeout: 60_000 });
  await page.waitForURL(`**/apps/${app}/deployments/2`);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  const numbers = (await page.locator(".line-number").allTextContents()).map(Number);
  expect(numbers).toEqual(numbers.map((_, i) => (numbers[0] ?? 0) + i));
  await page.getByText("Say hello <b>⟨U+202E⟩olleh</b>").first().waitFor();
  await page
    .getByText(/Push by/)
    .first()
    .waitFor();
  await eventually("the other tab to show it", async () => (await second.getByText("#2").count()) > 0);
  const streams = await second.evaluate(
    () => performance.getEntriesByType("resource").filter((e) => e.name.includes("/events")).length,
  );
  expect(streams, "the second tab opened a stream of its own").toBe(0);
  await second.close();
  calm();
});

test("the app's page tells what is live and why each delivery did what it did", async () => {
  await stack.push(repository, "main", "A third one");
  await s.visit(`apps/${app}`);
  await page.locator(".headline").getByText("#3").waitFor({ timeout: 60_000 });
  await page.getByText(/last verified delivery/).waitFor();
  await check(page, "app-overview");
  await narrow(page, "app-overview");
  await page.getByRole("link", { name: "Deliveries" }).click();
  await page.getByRole("link", { name: "Deployed as #3" }).waitFor();
  await check(page, "app-deliveries");
  await page.getByRole("combobox", { name: "Outcome" }).selectOption("FAILED");
  await page.getByText("No delivery is like that.").waitFor();
  expect(new URL(page.url()).searchParams.get("outcome")).toBe("FAILED");
  await page.reload(); // the filter is in the address
  await page.getByText("No delivery is like that.").waitFor();
  await page.getByRole("combobox", { name: "Outcome" }).selectOption("DEPLOYED");
  await page.getByRole("link", { name: "Deployed as #3" }).waitFor();
  await page.getByText("A third one").first().waitFor();
  await narrow(page, "app-deliveries");
  await page.getByRole("link", { name: "Deployments" }).click();
  await page.getByRole("combobox", { name: "Trigger" }).selectOption("MANUAL");
  await expect.poll(() => page.locator("tbody tr").count()).toBe(1);
  expect(new URL(page.url()).searchParams.get("trigger")).toBe("MANUAL");
  await check(page, "app-deployments");
  await page.getByRole("link", { name: "Settings", exact: true }).click();
  await page.getByRole("heading", { name: "Delete the app" }).waitFor();
  await check(page, "app-settings");
  calm();
});

test("auto-deploy is switched off and on", async () => {
  await s.visit(`apps/${app}`);
  const box = page.getByRole("switch", { name: "Deploy on every push" });
  await box.waitFor();
  expect(await box.isChecked()).toBe(true);
  await page.locator(".switch").first().click();
  await page.getByText("Pushes do not deploy.").waitFor();
  await eventually(
    "the switch to be stored",
    async () => !(await stack.api<{ autoDeploy: boolean }>("GET", `/v1/workspaces/default/apps/${app}`)).autoDeploy,
  );
  await page.locator(".switch").first().click();
  await page.locator(".health").getByText("Active").waitFor();
  calm();
});

test("the list of apps", async () => {
  await s.visit("apps");
  await page.getByRole("link", { name: app, exact: true }).waitFor();
  await check(page, "apps");
  await narrow(page, "apps");
  await page.setViewportSize({ width: 360, height: 740 });
  const menu = page.getByRole("button", { name: "Menu" });
  await menu.click();
  await page.getByRole("link", { name: "Integrations" }).waitFor();
  await check(page, "menu-narrow");
  await page.getByRole("link", { name: "Integrations" }).focus();
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: "Integrations" }).waitFor({ state: "hidden" });
  await focused(menu);
  await page.setViewportSize({ width: 1280, height: 860 });
  calm();
});

test("a broken token is told with what to do, and Refresh Token mends it", async () => {
  await s.visit("settings/integrations");
  await page.getByText("@jane-dev").waitFor();
  await stack.control("POST", "faults", { route: "/site/oauth2/access_token", status: 503, body: "no" });
  await stack.control("POST", "tokens/expire", {});
  await watch.expecting(/503|409|429/, async () => {
    await page.getByRole("button", { name: "Refresh Token" }).click();
    await page.getByText("Bitbucket does not renew the token for now.").waitFor({ timeout: 60_000 });
    await page.getByText("We keep trying; you need do nothing.").waitFor();
    await check(page, "integrations-refresh-failing");
    await narrow(page, "integrations-refresh-failing");
  });
  await stack.control("DELETE", "faults");
  // Soon after a failure Devpilot answers with what it knows, so that pressing cannot hurt others.
  await watch.expecting(/503|409|429/, () =>
    eventually("the token to be refreshed", async () => {
      await page.getByRole("button", { name: "Refresh Token" }).click();
      return page
        .getByText("Token refreshed.")
        .waitFor({ timeout: 3000 })
        .then(
          () => true,
          () => false,
        );
    }),
  );
  await eventually(
    "the banner to go",
    async () => (await page.getByText("Bitbucket does not renew the token for now.").count()) === 0,
  );
  calm();
});

/** Whether an option is within the part of its list that shows. */
const inSight = (option: Locator) =>
  option.evaluate((e) => {
    const box = e.getBoundingClientRect();
    const list = e.closest(".options")?.getBoundingClientRect();
    return list !== undefined && box.top >= list.top - 1 && box.bottom <= list.bottom + 1;
  });

test("the palette leads to apps and deployments, and ? lists the keys", async () => {
  await s.visit("activity");
  await page.getByRole("heading", { name: "Activity" }).waitFor();
  await page.keyboard.press("Control+k");
  const palette = page.getByRole("dialog", { name: "Jump to" });
  const field = palette.getByRole("searchbox", { name: "Page, app, deployment or workspace" });
  await palette.getByRole("option", { name: app }).waitFor();
  await check(page, "palette");
  await narrow(page, "palette");
  // Where not all places have room the list scrolls, and the keys lead to what is below.
  await page.setViewportSize({ width: 1280, height: 400 });
  await check(page, "palette-short");
  const last = palette.getByRole("option").last();
  await expect(inSight(last)).resolves.toBe(false);
  await field.press("ArrowUp"); // from the first to the last
  await expect.poll(() => inSight(last)).toBe(true);
  await page.setViewportSize({ width: 1280, height: 860 });
  await field.fill(`${app} #1`);
  await field.press("Enter");
  await page.waitForURL(`**/apps/${app}/deployments/1`);
  await palette.waitFor({ state: "detached" });
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.getByRole("button", { name: "Jump to…" }).click();
  await field.fill("no such thing anywhere");
  await palette.getByText("Nothing here has this name.").waitFor();
  await field.fill("activ");
  await field.press("Enter");
  await page.waitForURL(/activity$/);
  await page.getByRole("heading", { name: "Activity" }).waitFor();
  await page.keyboard.press("?");
  const keys = page.getByRole("dialog", { name: "Keys" });
  await keys.getByText("New app").waitFor();
  await check(page, "keys");
  await page.keyboard.press("Escape");
  await keys.waitFor({ state: "detached" });
  s.calm();
});

test("activity lists what was done", async () => {
  await page.keyboard.press("g");
  await page.keyboard.press("y");
  await page.waitForURL("**/activity");
  await page.getByText(/Created app/).waitFor();
  const search = page.getByRole("search", { name: "Activity" });
  await search.getByLabel("What").selectOption("Sign-ins");
  await page.getByText(/Created app/).waitFor({ state: "detached" });
  await search.getByLabel("What").selectOption("Apps");
  await page.getByText(/Created app/).waitFor();
  await search.getByLabel("Who").fill("nobody");
  await page.getByText("Nothing that was done is like that.").waitFor();
  await page.reload();
  await page.getByText("Nothing that was done is like that.").waitFor();
  await search.getByLabel("Who").fill("");
  await page.getByText(/Created app/).waitFor();
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
  expect(file.suggestedFilename()).toMatch(/^activity-.*\.csv$/);
  expect(await readFile(await file.path(), "utf8")).toMatch(/^time,number,actor[^]*app\.create/);
  await check(page, "activity");
  await narrow(page, "activity");
  calm();
});

test("removing says what goes and what stays, and gives the focus back", async () => {
  await s.visit("settings/integrations");
  const remove = page.getByRole("button", { name: "Remove…" });
  await remove.click();
  const dialog = page.getByRole("alertdialog");
  await dialog.getByRole("link", { name: `${repository} webhook settings` }).waitFor();
  await check(page, "integrations-remove");
  await narrow(page, "integrations-remove");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await focused(remove);
  await remove.click();
  await dialog.getByRole("button", { name: "Remove Bitbucket" }).click();
  await page.getByText("Not connected").first().waitFor();
  await page.getByRole("heading", { name: "Left on Bitbucket" }).waitFor({ timeout: 30_000 });
  await check(page, "integrations-removed");
  await page.getByRole("button", { name: `Deleted from ${repository}` }).click();
  await page.getByRole("heading", { name: "Left on Bitbucket" }).waitFor({ state: "detached" });
  await s.visit(`apps/${app}`);
  await page.getByRole("heading", { name: app }).waitFor();
  await check(page, "app-after-removal");
  await s.visit("apps/new");
  await page.getByRole("heading", { name: "Connect Bitbucket first" }).waitFor();
  await check(page, "new-app-not-connected");
  calm();
});

test("what is not there is said so", async () => {
  await watch.expecting(/404/, async () => {
    await s.visit("apps/nothing");
    await page.getByRole("alert").waitFor();
    await check(page, "app-missing");
    await s.visit(`apps/${app}/deployments/999`);
    await page.getByRole("alert").waitFor();
  });
  await s.visit("nowhere");
  await page.getByRole("heading", { name: "There is no such page" }).waitFor();
  await check(page, "not-found");
  calm();
});
