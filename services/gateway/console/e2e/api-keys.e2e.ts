// API keys: made with a scope, an app and an expiry, shown once, used by a program, and revoked.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, narrow, scene, visit, type Scene } from "./browser";
import { eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  const { repositories } = await s.stack.api<{ repositories: { id: string }[] }>(
    "GET",
    "/v1/workspaces/default/repositories",
  );
  for (const appId of ["docs", "shop"])
    await s.stack.api("POST", "/v1/workspaces/default/apps", {
      appId,
      app: { repository: repositories[0]?.id, branch: "main", autoDeploy: false },
    });
});

afterAll(() => s?.end());

/** What a program is answered that shows the key. */
const asProgram = (key: string, method: string, path: string) =>
  fetch(`${s.stack.url}/v1/${path}`, {
    method,
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    ...(method === "POST" ? { body: "{}" } : {}),
  });

test("a key is made, shown once, used, seen to be used, and revoked", async () => {
  await s.visit("settings/api-keys");
  await page.getByText("There is no key yet.").waitFor();
  await check(page, "api-keys-empty");
  await page.getByRole("button", { name: "Create key" }).click();
  await check(page, "api-keys-new");
  await narrow(page, "api-keys-new");
  const form = page.getByRole("form", { name: "Create an API key" });
  await s.watch.expecting(/status of 400/, async () => {
    await form.getByRole("button", { name: "Create key" }).click();
    await form.getByText("is required").waitFor();
  });
  await form.getByLabel("Name", { exact: true }).fill("CI of the shop");
  expect(await form.getByRole("radio", { name: /^Deploy/ }).isChecked()).toBe(true);
  await form.getByRole("checkbox", { name: "shop" }).check();
  await form.getByLabel("Expires").selectOption("day");
  await form.getByText("Choose the last day on which it works.").waitFor();
  await form.getByLabel("Last day").fill("2099-12-31");
  await form.getByText(/It stops working/).waitFor();
  await form.getByRole("button", { name: "Create key" }).click();
  await page.getByText("Copy the key now").waitFor();
  const secret = await page.getByText(/^dpk_/).first().innerText();
  await page.getByRole("button", { name: "Copy Key" }).waitFor();
  await check(page, "api-keys-made");
  await page.getByRole("button", { name: "Done" }).click();
  const row = page.getByRole("list", { name: "API keys" }).getByRole("listitem").filter({ hasText: "CI of the shop" });
  await row.getByText("Deploy, only shop").waitFor();
  await row.getByText("never used").waitFor();
  expect(await page.getByText(secret).count()).toBe(0);

  expect((await asProgram(secret, "GET", "workspaces/default/apps/shop")).status).toBe(200);
  expect((await asProgram(secret, "GET", "workspaces/default/apps/docs")).status).toBe(403);
  expect((await asProgram(secret, "DELETE", "workspaces/default/apps/shop")).status).toBe(403);
  const connecting = await asProgram(secret, "POST", "workspaces/default/integrations/bitbucket:connect");
  expect([connecting.status, ((await connecting.json()) as { reason: string }).reason]).toEqual([
    403,
    "BROWSER_REQUIRED",
  ]);
  await row.getByText("used within the last hour").waitFor(); // without loading anew

  await check(page, "api-keys");
  await narrow(page, "api-keys");
  await row.getByRole("button", { name: "Revoke CI of the shop" }).click();
  await check(page, "api-keys-revoke");
  await page.getByRole("alertdialog").getByRole("button", { name: "Revoke" }).click();
  await page.getByText("There is no key yet.").waitFor();
  expect((await asProgram(secret, "GET", "workspaces/default/apps/shop")).status).toBe(401);
  s.calm();
});

test("a key that another person revokes goes from the page, and an expired one says so", async () => {
  const made = await s.stack.api<{ apiKey: { id: string } }>("POST", "/v1/workspaces/default/apiKeys", {
    label: "Nightly report",
    scope: "READ",
  });
  await s.stack.api("POST", "/v1/workspaces/default/apiKeys", {
    label: "For a moment",
    scope: "ADMIN",
    expireTime: new Date(Date.now() + 2000).toISOString(),
  });
  await visit(page, s.at("settings/api-keys"));
  const row = page.getByRole("listitem").filter({ hasText: "Nightly report" });
  await row.waitFor();
  await eventually("the key to expire", async () => (await page.getByText(/expired/).count()) > 0, 90_000);
  await s.stack.api("DELETE", `/v1/workspaces/default/apiKeys/${made.apiKey.id}`);
  await row.waitFor({ state: "detached" });
  s.calm();
});
