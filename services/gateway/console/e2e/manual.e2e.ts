// An account that is an admin of nothing: the webhook is added by hand, and the page sees it work.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, grant, narrow, scene, type Scene } from "./browser";
import { createApp } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("not-admin");
  ({ page } = s);
  await s.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto(s.at("settings/integrations"));
  await grant(s.stack, page);
});

afterAll(() => s?.end());

const copied = () => page.evaluate(() => navigator.clipboard.readText());

test("the form says before saving that the webhook must be added by hand", async () => {
  await page.goto(s.at("apps/new"));
  const field = page.getByRole("combobox", { name: "Repository" });
  await field.click();
  await page.getByRole("option", { name: /Web/ }).click();
  await page.getByText("The connected account is not an admin of acme/web").waitFor();
  await check(page, "new-app-not-admin");
  s.calm();
});

test("the steps are copied, followed, and the waiting turns green by itself", async () => {
  await createApp(s.stack, "web", "acme/web", true);
  await page.goto(s.at("apps/web"));
  const steps = page.getByRole("region", { name: "Add the webhook by hand" });
  await steps.getByText("Waiting for the first delivery…").waitFor();
  await check(page, "webhook-manual");
  await narrow(page, "webhook-manual");
  expect(await steps.getByRole("link", { name: "its webhook settings on Bitbucket" }).getAttribute("href")).toBe(`${s.stack.site}/acme/web/admin/webhooks`);

  await steps.getByRole("button", { name: "Copy URL" }).click();
  await steps.getByRole("status").getByText("Copied").first().waitFor();
  const url = await copied();
  expect(url).toMatch(new RegExp(`^${s.stack.url}/webhooks/bitbucket/[a-z0-9]+$`));
  await steps.getByRole("button", { name: "Reveal the secret" }).click();
  await steps.getByRole("button", { name: "Copy Secret" }).click();
  await expect.poll(copied).not.toBe(url);
  const secret = await copied();
  expect(secret.length).toBeGreaterThan(20);
  await check(page, "webhook-manual-revealed");
  await narrow(page, "webhook-manual-revealed");
  await steps.getByRole("button", { name: "Hide the secret" }).click();
  expect(await page.content()).not.toContain(secret);

  // An admin of the repository does as told; a push then comes in.
  await s.stack.control("POST", "repositories/acme/web/hooks", { description: "by hand", url, secret, active: true, events: ["repo:push"] });
  await s.stack.push("acme/web", "main", "The first that is delivered");
  await page.getByText("The first delivery came, and its signature was right.").or(page.getByText("Added by hand")).first().waitFor({ timeout: 60_000 });
  await page.getByText(/last verified delivery/).waitFor();
  await check(page, "webhook-manual-works");
  await narrow(page, "webhook-manual-works");
  await page.locator(".headline").getByText("#2").waitFor({ timeout: 60_000 });
  await page.goto(s.at("activity"));
  await page.getByText("webhook.revealSecret").first().waitFor();
  s.calm();
});
