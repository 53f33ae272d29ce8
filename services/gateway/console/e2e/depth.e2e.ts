// Deployments in depth: hooks with their lines, cancel, redeploy, rollback, variables, rules, serving.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, narrow, scene, type Scene } from "./browser";
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
  rules?: { paths: string[] };
  autoDeploy: boolean;
  live?: { number: number };
}
const app = () => s.stack.api<App>("GET", "/v1/workspaces/default/apps/web");

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
  await page.goto(s.at("apps/web?tab=settings&section=hooks"));
  await page.getByRole("button", { name: "Add a hook…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Save the hook" }).click();
  await dialog.getByText("Give it a name.").waitFor();
  await check(page, "settings-hook-dialog");
  await narrow(page, "settings-hook-dialog");
  await page.keyboard.press("Escape");
  await addHook("build", "for i in $(seq 400); do echo built part $i; done");
  await addHook("check", "echo checked with $GREETING");
  await addHook("extra", "true");
  const up = page.getByRole("button", { name: "Move check up" });
  await up.focus();
  await page.keyboard.press("Enter");
  await eventually("the order to be stored", async () => (await app()).hooks.map((h) => h.name).join() === "check,build,extra");
  await expect.poll(() => up.evaluate((b) => b === document.activeElement)).toBe(true);
  await page.getByRole("button", { name: "Move check down" }).click();
  await eventually("the order to be stored", async () => (await app()).hooks.map((h) => h.name).join() === "build,check,extra");
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

test("a hook leads to its lines, and the log follows what it writes", async () => {
  await page.goto(s.at("apps/web"));
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/2$/);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  const rail = page.getByRole("list", { name: "Stages" });
  await rail.getByRole("link", { name: "check" }).click();
  expect(new URL(page.url()).hash).toMatch(/^#L4\d\d(-L4\d\d)?$/);
  await page.locator(".line.target").getByText("checked with a friend").waitFor();
  await check(page, "deployment-hooks");
  await narrow(page, "deployment-hooks");
  await rail.getByRole("link", { name: "build" }).click();
  await page.locator(".line.target").getByText("built part 1", { exact: true }).waitFor();
  s.calm();
});

test("a running deployment is cancelled, and what is live stays", async () => {
  await page.goto(s.at("apps/web?tab=settings&section=hooks"));
  await page.getByRole("button", { name: "Edit build" }).click();
  await page.getByRole("dialog").getByLabel("Command").fill("echo begun; sleep 120");
  await page.getByRole("dialog").getByRole("button", { name: "Save the hook" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/3$/);
  await page.getByText("begun", { exact: true }).waitFor({ timeout: 60_000 });
  await check(page, "deployment-hook-running");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByText("End of the log: cancelled.").waitFor({ timeout: 60_000 });
  await page.getByText("Cancelled").first().waitFor();
  await check(page, "deployment-cancelled");
  expect((await app()).live?.number).toBe(2);
  s.calm();
});

test("a hook that fails is named with its exit code and its last ten lines", async () => {
  await page.goto(s.at("apps/web?tab=settings&section=hooks"));
  await page.getByRole("button", { name: "Edit build" }).click();
  await page.getByRole("dialog").getByLabel("Command").fill("for i in $(seq 30); do echo step $i; done; echo it is broken >&2; exit 3");
  await page.getByRole("dialog").getByRole("button", { name: "Save the hook" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/4$/);
  await page.getByRole("heading", { name: /Deployment hook “build” failed with exit code 3/ }).waitFor({ timeout: 60_000 });
  const last = page.getByLabel("Last lines of the failed step");
  await last.getByText("it is broken").waitFor();
  expect((await last.locator("bdi").allTextContents()).length).toBeLessThanOrEqual(10);
  await check(page, "deployment-hook-failed");
  await narrow(page, "deployment-hook-failed");
  s.calm();
});

test("the same commit is deployed again, and an older release comes back without auto-deploy", async () => {
  await page.goto(s.at("apps/web?tab=settings&section=hooks"));
  await page.getByRole("button", { name: "Remove build" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Remove the hook" }).click();
  await page.getByRole("button", { name: "Edit build" }).waitFor({ state: "detached" });
  await page.goto(s.at("apps/web/deployments/2"));
  await page.getByRole("button", { name: /^Redeploy [0-9a-f]{7}$/ }).click();
  await page.waitForURL(/\/deployments\/5$/);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  await page.getByText("Redeploy of #2 by you").waitFor();
  await page.goto(s.at("apps/web/deployments/2"));
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

test("rules say before they are saved whether a push would deploy", async () => {
  await page.goto(s.at("apps/web?tab=settings&section=rules"));
  await page.getByLabel("Only when one of these paths changed, one a line").fill("services/web/**");
  await page.getByText("Asked with the rules as they stand above, not saved yet.").waitFor();
  await page.getByLabel("Changed paths, one a line").fill("docs/readme.md");
  await page.getByRole("button", { name: "Check", exact: true }).click();
  await page.getByText("It would not deploy.").waitFor();
  await check(page, "settings-rules");
  await narrow(page, "settings-rules");
  await page.getByLabel("Changed paths, one a line").fill("services/web/index.html");
  await page.getByRole("button", { name: "Check", exact: true }).click();
  await page.getByText("It would deploy.").waitFor();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("Saved.").waitFor();
  expect((await app()).rules?.paths).toEqual(["services/web/**"]);
  s.calm();
});

test("what is served has a link, and configuration as code its warning", async () => {
  await page.goto(s.at("apps/web?tab=settings&section=options"));
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
