// Deployments in depth: hooks with their lines, cancel, redeploy, rollback, variables, rules, serving.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, focused, narrow, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
});

afterAll(() => s?.end());

interface App {
  hooks: { name: string; command: string; stage: string }[];
  variables: { name: string; secret: boolean; value?: string }[];
  sharedPaths: string[];
  branch: string;
  rules?: { paths: string[] };
  autoDeploy: boolean;
  live?: { number: number };
}
const app = () => s.stack.api<App>("GET", "/v1/workspaces/default/apps/web");

/** Other commands than those that a test is about need no dialog. */
const setCommand = async (name: string, command: string) =>
  s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: (await app()).hooks.map((h) => (h.name === name ? { ...h, command } : h)),
  });

async function addHook(name: string, command: string, stage = "After fetching"): Promise<void> {
  await page.getByRole("button", { name: "Add a hook…" }).click();
  const dialog = page.getByRole("dialog", { name: "Add a deployment hook" });
  await dialog.getByLabel("Name").fill(name);
  await dialog.getByLabel("Stage").selectOption({ label: stage });
  await dialog.getByLabel("Command").fill(command);
  await dialog.getByRole("button", { name: "Save the hook" }).click();
  await dialog.waitFor({ state: "detached" });
}

test("hooks are added, edited, reordered by keyboard and removed", async () => {
  await s.visit("apps/web?tab=settings&section=hooks");
  await page.getByRole("button", { name: "Add a hook…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Save the hook" }).click();
  await dialog.getByText("Give it a name.").waitFor();
  await check(page, "settings-hook-dialog");
  await narrow(page, "settings-hook-dialog");
  await page.keyboard.press("Escape");
  await addHook("build", "for i in $(seq 400); do echo built part $i; done");
  await addHook("check", "echo checked with $GREETING and $(cat notes/note || echo no) note; echo one > notes/note");
  await addHook("extra", "true");
  const up = page.getByRole("button", { name: "Move check up" });
  await up.focus();
  await page.keyboard.press("Enter");
  await eventually(
    "the order to be stored",
    async () => (await app()).hooks.map((h) => h.name).join() === "check,build,extra",
  );
  await focused(up);
  await page.getByRole("button", { name: "Move check down" }).click();
  await eventually(
    "the order to be stored",
    async () => (await app()).hooks.map((h) => h.name).join() === "build,check,extra",
  );
  await page.getByRole("button", { name: "Remove extra" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Remove the hook" }).click();
  await page.getByRole("button", { name: "Edit extra" }).waitFor({ state: "detached" });
  s.calm();
});

test("secret variables go in and never come out", async () => {
  for (const [name, value, secret] of [
    ["GREETING", "a friend", false],
    ["API_TOKEN", "not-to-be-seen-4711", true],
  ] as const) {
    await page.getByRole("button", { name: "Add a variable…" }).click();
    const dialog = page.getByRole("dialog", { name: "Add a variable" });
    await dialog.getByLabel("Name").fill(name);
    if (secret) await dialog.getByLabel("Secret").check();
    await dialog.getByLabel("Value").fill(value);
    await dialog.getByRole("button", { name: "Save the variable" }).click();
    await dialog.waitFor({ state: "detached" });
  }
  await page.getByText("a friend").waitFor();
  await page.getByRole("button", { name: "Replace API_TOKEN" }).waitFor();
  await page.reload();
  await page.getByRole("button", { name: "Replace API_TOKEN" }).waitFor();
  expect(await page.content()).not.toContain("not-to-be-seen-4711");
  await check(page, "settings-hooks");
  await narrow(page, "settings-hooks");
  s.calm();
});

test("a shared path is kept from release to release", async () => {
  const form = page.getByRole("form", { name: "Shared paths" });
  await form.getByLabel("Paths, one a line").fill("/etc");
  await s.watch.expecting(/400/, async () => {
    await form.getByRole("button", { name: "Save" }).click();
    await form.locator(".field-error").getByText(/./).waitFor();
  });
  await form.getByLabel("Paths, one a line").fill("notes/");
  await form.getByRole("button", { name: "Save" }).click();
  await form.getByText("Saved.").waitFor();
  expect((await app()).sharedPaths).toEqual(["notes/"]);
  s.calm();
});

test("a hook leads to its lines, and the log follows what it writes", async () => {
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/2$/);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  const rail = page.getByRole("list", { name: "Stages" });
  await rail.getByRole("link", { name: "check" }).click();
  expect(new URL(page.url()).hash).toMatch(/^#L4\d\d(-L4\d\d)?$/);
  await page.locator(".line.target").getByText("checked with a friend and no note").waitFor();
  await check(page, "deployment-hooks");
  await narrow(page, "deployment-hooks");
  await rail.getByRole("link", { name: "build" }).click();
  await page.locator(".line.target").getByText("built part 1", { exact: true }).waitFor();
  s.calm();
});

test("a running deployment is cancelled, and what is live stays", async () => {
  await s.visit("apps/web?tab=settings&section=hooks");
  await page.getByRole("button", { name: "Edit build" }).click();
  await page.getByRole("dialog").getByLabel("Command").fill("echo begun; sleep 120");
  await page.getByRole("dialog").getByRole("button", { name: "Save the hook" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/3$/);
  await page.getByText("begun", { exact: true }).waitFor({ timeout: 60_000 });
  // Most of the work is still to come, and so it says.
  expect(
    await page.getByLabel("Progress of the deployment").evaluate((p) => (p as HTMLProgressElement).value),
  ).toBeLessThan(50);
  await check(page, "deployment-hook-running");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByText("End of the log: cancelled.").waitFor({ timeout: 60_000 });
  await page.getByText("Cancelled").first().waitFor();
  await check(page, "deployment-cancelled");
  expect((await app()).live?.number).toBe(2);
  s.calm();
});

test("a hook that fails is named with its exit code and its last ten lines", async () => {
  // All on one stream: two of them come in any order.
  await setCommand("build", "exec >&2; for i in $(seq 30); do echo step $i; done; echo it is broken; exit 3");
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/4$/);
  await page
    .getByRole("heading", { name: /Deployment hook “build” failed with exit code 3/ })
    .waitFor({ timeout: 60_000 });
  const last = page.getByLabel("Last lines of the failed step");
  await last.getByText("it is broken").waitFor();
  expect((await last.locator("bdi").allTextContents()).length).toBeLessThanOrEqual(10);
  await page.locator(".failure").getByText("Live meanwhile:").waitFor();
  await page.locator(".failure").getByRole("link", { name: "#2", exact: true }).waitFor();
  await check(page, "deployment-hook-failed");
  await narrow(page, "deployment-hook-failed");
  // The app's page says it too, with the hook's own last words and the way on.
  await s.visit("apps/web");
  const answer = page.getByRole("region", { name: "How it stands" });
  await answer.getByText("Hook build, exit 3").waitFor();
  await answer.getByLabel("Its last lines").getByText("it is broken").waitFor();
  await answer.getByRole("button", { name: "Redeploy" }).waitFor();
  await answer.getByRole("heading", { name: "Live", exact: true }).waitFor();
  await check(page, "app-hook-failed");
  await narrow(page, "app-hook-failed");
  await answer.getByRole("link", { name: "Log" }).click();
  await page.waitForURL(/\/deployments\/4$/);
  s.calm();
});

test("the same commit is deployed again, and an older release comes back without auto-deploy", async () => {
  await setCommand("build", "true");
  await s.visit("apps/web/deployments/2");
  await page.getByRole("button", { name: /^Redeploy [0-9a-f]{7}$/ }).click();
  await page.waitForURL(/\/deployments\/5$/);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  await page.getByText("Redeploy of #2 by you").waitFor();
  // What #2 wrote into the shared path is there.
  await page.getByText("checked with a friend and one note").waitFor();
  await s.visit("apps/web/deployments/2");
  await page.getByRole("button", { name: "Rollback to #2…" }).click();
  const dialog = page.getByRole("alertdialog");
  await dialog.getByText("Nothing is fetched").waitFor();
  expect(await dialog.getByLabel("Switch auto-deploy off").isChecked()).toBe(true);
  await check(page, "deployment-rollback");
  await narrow(page, "deployment-rollback");
  await dialog.getByRole("button", { name: "Rollback to #2" }).click();
  await page.waitForURL(/\/deployments\/6$/);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  await page.getByText("Rollback to #2 by you").waitFor();
  expect((await app()).autoDeploy).toBe(false);
  s.calm();
});

test("a hook after the release fails: it is live all the same, and the way back is there", async () => {
  const { hooks } = await app();
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: [...hooks, { name: "smoke", command: "echo no answer; exit 4", stage: "POST_RELEASE" }],
  });
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/7$/);
  await page
    .getByRole("heading", { name: /Deployment hook “smoke” failed with exit code 4/ })
    .waitFor({ timeout: 60_000 });
  await page.locator(".subline").getByText("live", { exact: true }).waitFor();
  await page
    .locator(".failure")
    .getByText("The release is live all the same; roll back if it does not work.", { exact: true })
    .waitFor();
  const back = page.locator(".failure").getByRole("button", { name: /^Rollback to #\d…$/ });
  await back.waitFor();
  await check(page, "deployment-live-but-failed");
  await narrow(page, "deployment-live-but-failed");
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks });
  await back.click();
  await page
    .getByRole("alertdialog")
    .getByRole("button", { name: /^Rollback to #\d$/ })
    .click();
  await page.waitForURL(/\/deployments\/8$/);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  expect((await app()).live?.number).toBe(8);
  s.calm();
});

test("rules say before they are saved whether a push would deploy", async () => {
  await s.visit("apps/web?tab=settings&section=rules");
  await page.getByLabel("Only when one of these paths changed, one a line").fill("services/web/**");
  await page.getByText("Asked with the rules as they stand above, not saved yet.").waitFor();
  await page.getByLabel("Changed paths, one a line").fill("docs/readme.md");
  await page.getByRole("button", { name: "Check", exact: true }).click();
  await page.getByText("This push would not deploy.").waitFor();
  await check(page, "settings-rules");
  await narrow(page, "settings-rules");
  await page.getByLabel("Changed paths, one a line").fill("services/web/index.html");
  await page.getByRole("button", { name: "Check", exact: true }).click();
  await page.getByText("This push would deploy.").waitFor();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("Saved.").waitFor();
  expect((await app()).rules?.paths).toEqual(["services/web/**"]);
  s.calm();
});

test("what is served has a link, and configuration as code its warning", async () => {
  await s.visit("apps/web?tab=settings&section=options");
  await page.getByLabel("Let .devpilot.yaml in the repository decide").check();
  await page.getByText("Whoever can push can then run commands on the server.").waitFor();
  await page.getByLabel("Directory to serve").fill(".");
  await check(page, "settings-options");
  await narrow(page, "settings-options");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("Saved.").waitFor();
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/\d+$/);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  const site = page.getByRole("link", { name: "Open the live site" });
  await site.waitFor();
  expect(await site.getAttribute("href")).toMatch(/^http/);
  await check(page, "deployment-served");
  s.calm();
});

test("an installation that cannot tell Bitbucket says so at the option, not as an alarm", async () => {
  // This one can: the answer is the product's with the warning of one that cannot.
  const message = "Deployments are not shown at the commits on Bitbucket: the link to them would not work.";
  await page.route("**/v1/workspaces/default/apps/web", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({
      response: answer,
      json: { ...((await answer.json()) as object), warnings: [{ reason: "STATUS_NOT_SENT", message }] },
    });
  });
  // What the stream brings of the app is the product's own, too: here it only says look again.
  const stream = /\/events\?/;
  await page.route(stream, async (route) => {
    const url = new URL(route.request().url());
    url.searchParams.delete("include");
    await route.continue({ url: url.href });
  });
  await page.goto(s.at("apps/web?tab=settings&section=options")); // what is here already is the product's own
  await page.getByText(message).waitFor();
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByRole("heading", { name: "Live", exact: true }).waitFor();
  expect(await page.getByText(message).count()).toBe(0);
  expect(await page.locator(".banner").count()).toBe(0);
  await page.unroute("**/v1/workspaces/default/apps/web");
  await page.unroute(stream);
  s.calm();
});

test("mistakes in .devpilot.yaml are listed with their lines", async () => {
  const file = "version: 1\nhooks:\n  - name: build\n    stage: POST_BUILD\n    command: make\n";
  await s.stack.control("POST", "repositories/acme/web/pushes", {
    account: "jane-dev",
    changes: [{ branch: "main", commits: [{ message: "A wrong file", files: { ".devpilot.yaml": file } }] }],
  });
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/\d+$/);
  await page.getByText("End of the log: failed.").waitFor({ timeout: 60_000 });
  await page
    .getByText(/POST_BUILD/)
    .first()
    .waitFor();
  await page.getByText("Correct the file at the line and column named, and push.").waitFor();
  await check(page, "deployment-code-invalid");
  await s.visit("apps/web?tab=settings&section=options");
  const problems = page.locator(".banner", { hasText: ".devpilot.yaml does not count: it has mistakes." });
  await problems.getByText(/^Line 4, column 12: .*POST_BUILD/).waitFor();
  await check(page, "settings-code-invalid");
  await narrow(page, "settings-code-invalid");
  s.calm();
});

test("an app watches a pattern of branches", async () => {
  await s.visit("apps/web?tab=settings");
  await page.getByLabel("Watch a pattern of branches instead of one").check();
  const pattern = page.getByLabel("Pattern of branches", { exact: true });
  await pattern.fill("release/[");
  await s.watch.expecting(/400/, async () => {
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.locator(".field-error").getByText(/./).first().waitFor();
  });
  await pattern.fill("release/*");
  await page.locator(".field-error").getByText(/./).waitFor({ state: "detached" });
  await check(page, "settings-pattern");
  await narrow(page, "settings-pattern");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("Saved.").waitFor();
  expect((await app()).branch).toBe("release/*");
  s.calm();
});

test("an app that watches a pattern asks which branch is to be deployed, the last one first", async () => {
  const api = (path: string) =>
    s.stack.api<{ branch: string; commit?: { message: string } }>("GET", `/v1/workspaces/default/apps/api${path}`);
  await createApp(s.stack, "api", "acme/api", false, "release/*");
  await s.visit("apps/api");
  await page.getByText("push to a branch that matches release/*").first().waitFor();
  await page.getByRole("button", { name: "Deploy latest…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("No branch matches it yet.").waitFor();
  await focused(dialog.getByRole("combobox", { name: "Branch" }));
  await check(page, "deploy-branch-none");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });

  // Two branches come, each with git; the second push is the last deployment.
  await s.stack.push("acme/api", "release/1.0", "One, first", "main");
  await eventually("the first push", async () => (await api("/deployments/1")).branch === "release/1.0");
  await s.stack.push("acme/api", "release/2.0", "Two, first", "main");
  await eventually("the second push", async () => (await api("/deployments/2")).branch === "release/2.0");
  await page.locator("tbody").getByText("on release/2.0").waitFor();
  // The service shares an answer of Bitbucket's for some seconds; the first look was just now.
  const { repository } = await s.stack.api<{ repository: string }>("GET", "/v1/workspaces/default/apps/api");
  const branches = () =>
    s.stack.api<{ branches: object[] }>(
      "GET",
      `/v1/workspaces/default/repositories/${encodeURIComponent(repository)}/branches?query=release/`,
    );
  await eventually("the branches to be listed", async () => (await branches()).branches.length === 2);

  const open = page.getByRole("button", { name: "Deploy latest…" });
  await open.click();
  const field = dialog.getByRole("combobox", { name: "Branch" });
  await expect.poll(() => field.inputValue()).toBe("release/2.0");
  await dialog.getByRole("button", { name: "Deploy release/2.0" }).waitFor();
  await field.click();
  const options = dialog.getByRole("option");
  await expect.poll(() => options.count()).toBe(2);
  expect(await options.nth(0).textContent()).toMatch(/^release\/2\.0deployed as #2.*Two, first/);
  expect(await options.nth(1).textContent()).toMatch(/^release\/1\.0deployed as #1.*One, first/);
  await check(page, "deploy-branch");
  await narrow(page, "deploy-branch");
  // Escape closes the list, then the dialog, and the focus is where it was.
  await page.keyboard.press("Escape");
  await dialog.getByRole("listbox").waitFor({ state: "detached" });
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await focused(open);

  await open.click();
  await field.fill("1.0");
  await expect.poll(() => options.allTextContents()).toEqual([expect.stringMatching(/^release\/1\.0/)]);
  await field.press("Enter");
  await expect.poll(() => field.inputValue()).toBe("release/1.0");
  await dialog.getByRole("button", { name: "Deploy release/1.0" }).click();
  await page.waitForURL("**/apps/api/deployments/3");
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  await page.locator(".subline").getByText("One, first").waitFor();
  expect((await api("/deployments/3")).branch).toBe("release/1.0");
  // From here the branch of this deployment is the one that is offered.
  await page.getByRole("button", { name: "Deploy latest…" }).click();
  await dialog.getByRole("button", { name: "Deploy release/1.0" }).waitFor();
  await page.keyboard.press("Escape");
  s.calm();
});
