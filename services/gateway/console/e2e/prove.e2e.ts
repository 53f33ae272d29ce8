// The proof of a connection, and which Bitbucket workspaces a workspace sees: how far it is, what it found and how
// to share it; what is outside says so everywhere and goes on by itself once it is inside again.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Locator, Page } from "playwright-core";
import { check, connect, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await s.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await connect(s.stack, s.context);
  await Promise.all([
    createApp(s.stack, "web", "acme/web", true),
    createApp(s.stack, "api", "acme/api", true),
    createApp(s.stack, "site", "jane-dev/site", true),
  ]);
});

afterAll(() => s?.end());

const proof = (on: Page) => on.getByRole("region", { name: "Prove it" });
const row = (on: Page, name: string): Locator =>
  proof(on)
    .getByRole("listitem")
    .filter({ has: on.getByText(name, { exact: true }) });

async function pictures(on: Page, what: Locator, name: string): Promise<void> {
  await what.scrollIntoViewIfNeeded();
  await check(on, name, true);
  await on.setViewportSize({ width: 390, height: 800 });
  await what.scrollIntoViewIfNeeded();
  await check(on, `${name}-390`, true);
  await on.setViewportSize({ width: 1280, height: 860 });
}

test("a proof shows how far it is over a reload, what it came to, and a report to share without secrets", async () => {
  await s.visit("settings/integrations");
  // git does not answer for now.
  const { id } = (await s.stack.control("POST", "faults", {
    kind: "slow",
    route: "git:refs",
    repository: "acme/web",
    delay: "12s",
  })) as { id: string };
  // Before the first one has begun there is none to tell of.
  await s.watch.expecting(/proof|Failed to load resource/, async () => {
    await proof(page).getByRole("button", { name: "Prove it" }).click();
    await proof(page)
      .getByText(/^\d+ of \d+ checks have ended\.$/)
      .waitFor();
    await page.reload();
  });
  await row(page, "git acme/web").getByText("running").waitFor();
  expect(await proof(page).getByRole("button", { name: "Checking…" }).isVisible()).toBe(true);
  await pictures(page, proof(page), "prove-running");
  await s.stack.control("DELETE", `faults/${id}`);
  const done = proof(page).getByText("Whatever was checked is as it should be.");
  await done.waitFor();
  await row(page, "git acme/web")
    .getByText(/git lists \d+ branches with today's token\./)
    .waitFor();
  await row(page, "commit status").getByText("skipped").waitFor();
  await pictures(page, proof(page), "prove-well");
  await proof(page).getByRole("button", { name: "Copy report" }).click();
  await proof(page).getByRole("button", { name: "Copied" }).waitFor();
  const report = await page.evaluate(() => navigator.clipboard.readText());
  expect(report).toMatch(/^Devpilot \S+, workspace default, \S+Z: all passed\n/);
  expect(report).not.toContain(s.stack.adminToken);
  expect(report).not.toMatch(/webhooks\/bitbucket\/[a-z0-9]/);
  // Asked again at once, it says when it may be.
  await s.watch.expecting(/429/, async () => {
    await proof(page).getByRole("button", { name: "Prove it" }).click();
    await proof(page)
      .getByText(/Prove it again in half a minute\./)
      .waitFor();
  });
  await done.waitFor(); // and what was found stays
  s.calm();
});

test("what is not well says why and what mends it", async () => {
  await s.stack.api("POST", "/v1/workspaces", { workspaceId: "second" });
  await connect(s.stack, s.context, "second");
  await createApp(s.stack, "second", "acme/web", false, "main", "second");
  for (const fault of [
    { kind: "ip-allow-list", repository: "acme/web" },
    { kind: "permission-downgrade", repository: "acme/web", permission: "read" },
  ])
    await s.stack.control("POST", "faults", fault);
  await page.goto(`${s.stack.url}/w/second/settings/integrations`);
  await s.watch.expecting(/proof|Failed to load resource/, async () => {
    await proof(page).getByRole("button", { name: "Prove it" }).click();
    await proof(page)
      .getByText(/\d+ of \d+ checks failed\./)
      .waitFor();
  });
  await row(page, "git acme/web")
    .getByText(/an admin must whitelist your IP/)
    .waitFor();
  await row(page, "git acme/web")
    .getByText(/^At Bitbucket, allow this server's address in the IP allow-list/)
    .waitFor();
  await row(page, "admin acme/web")
    .getByText(/^Give the connected account admin permission/)
    .waitFor();
  await pictures(page, proof(page), "prove-failed");
  await s.stack.control("DELETE", "faults");
  s.calm();
});

const narrowing = () => page.getByRole("region", { name: "Bitbucket workspaces" });

test("an admin narrows the workspace: what is outside says so in one sentence, and goes on once it is inside", async () => {
  await page.goto(s.at("settings/integrations"));
  await narrowing().getByText("All that the account reaches are seen and deployed.").waitFor();
  await narrowing().getByRole("button", { name: "Narrow…" }).click();
  await narrowing().getByRole("checkbox", { name: "jane-dev" }).check();
  await pictures(page, narrowing(), "narrowing-choice");
  // Somebody else narrows it while it is being saved; then the page knows, and another Save is meant.
  const path = "/v1/workspaces/default/integrations/bitbucket:narrow";
  const there = await s.stack.api<{ bitbucketWorkspaces: { id: string; slug: string }[] }>(
    "GET",
    "/v1/workspaces/default/bitbucketWorkspaces",
  );
  const acme = there.bitbucketWorkspaces.find((w) => w.slug === "acme");
  await page.route(
    (url) => url.pathname === path,
    async (route) => {
      await s.stack.api("POST", path, { bitbucketWorkspaces: [{ id: acme?.id, name: "acme" }] });
      await route.continue();
    },
    { times: 1 },
  );
  await s.watch.expecting(/409|412/, async () => {
    await narrowing().getByRole("button", { name: "Save" }).click();
    await narrowing().getByText("Nothing was changed.").waitFor();
  });
  await narrowing()
    .getByText(/Only acme:/)
    .waitFor();
  await narrowing().getByText("Somebody changed this meanwhile.").waitFor();
  await narrowing().getByRole("button", { name: "Save" }).click();
  await narrowing()
    .getByText(/Only jane-dev:/)
    .waitFor();
  const apart = "2 apps do not deploy, because an admin narrowed this workspace: api, web.";
  await page.getByText(apart).waitFor(); // beside what mends it
  await pictures(page, narrowing(), "narrowed");

  await s.visit("apps");
  await page.getByText(apart).first().waitFor();
  await check(page, "narrowed-apps", true);
  await s.visit("apps/web");
  await page
    .getByText(/An admin narrowed this workspace to some Bitbucket workspaces/)
    .first()
    .waitFor();
  await check(page, "narrowed-app", true);
  await s.visit("apps/new");
  const field = page.getByRole("combobox", { name: "Repository" });
  await field.click();
  await page
    .getByRole("option", { name: /jane-dev/ })
    .first()
    .waitFor();
  expect(await page.getByRole("option", { name: /acme/ }).count()).toBe(0);
  await page.keyboard.press("Escape");

  // A push from outside, and the answer to why it is not live.
  await s.stack.push("acme/web", "main", "From outside");
  await s.visit("apps/web?tab=deliveries");
  await page.getByText("From outside").first().waitFor();

  await s.visit("settings/integrations");
  await narrowing().getByRole("button", { name: "Change…" }).click();
  await narrowing().getByRole("checkbox", { name: "jane-dev" }).uncheck();
  await narrowing().getByRole("button", { name: "Save" }).click();
  await narrowing().getByText("All that the account reaches are seen and deployed.").waitFor();
  await page.getByText(apart).waitFor({ state: "detached" });
  await eventually("the push from outside to be live", async () => {
    const web = await s.stack.api<{ live?: { commit: { message: string } } }>("GET", "/v1/workspaces/default/apps/web");
    return web.live?.commit.message.includes("From outside") === true;
  });
  s.calm();
});
