// Webhooks that need somebody: what was switched off at Bitbucket says so, and Repair mends it; the list of
// deliveries, by time, with a body and with several replayed.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

interface Hook {
  id: string;
  url: string;
  bitbucketUuid: string;
  health?: string;
  lastVerifiedTime?: string;
}

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await s.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  await createApp(s.stack, "api", "acme/api", false);
});

afterAll(() => s?.end());

const webhooks = async () =>
  (await s.stack.api<{ webhooks: Hook[] }>("GET", "/v1/workspaces/default/webhooks?orderBy=health")).webhooks;
const hookOf = async (app: string) => {
  const { webhook } = await s.stack.api<{ webhook?: Hook }>("GET", `/v1/workspaces/default/apps/${app}`);
  const found = (await webhooks()).find((w) => w.id === webhook?.id);
  if (found === undefined) throw new Error(`${app} has no webhook`);
  return found;
};

interface Summary {
  state: string;
  commit?: { hash: string };
}
const web = async () =>
  s.stack.api<{ live?: Summary & { number: number }; latest?: Summary }>("GET", "/v1/workspaces/default/apps/web");

/** Switches the hook off as an admin of the repository does. */
async function switchOff(hook: Hook, repository: string): Promise<void> {
  const tokens = (await s.stack.control("POST", "grants", {
    account: "jane-dev",
    scopes: ["webhook", "repository", "account"],
  })) as { access_token: string };
  const site = s.stack.site;
  const r = await fetch(
    `${site}/2.0/repositories/${repository}/hooks/${encodeURIComponent(`{${hook.bitbucketUuid}}`)}`,
    {
      method: "PUT",
      headers: { Authorization: `Bearer ${tokens.access_token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ description: "off", url: hook.url, active: false, events: ["repo:push"] }),
    },
  );
  if (!r.ok) throw new Error(`switch off: ${r.status} ${await r.text()}`);
}

test("a webhook that was switched off stands first, says so, and Repair switches it on again", async () => {
  await s.stack.push("acme/web", "main", "The first");
  const hook = await eventually("the first delivery", async () => {
    const w = await hookOf("web");
    return w.lastVerifiedTime !== undefined && w;
  });
  await s.visit("settings/integrations");
  const section = page.getByRole("region", { name: "Webhooks", exact: true });
  const rows = section.getByRole("list", { name: "Webhooks" }).getByRole("listitem");
  await rows.nth(1).waitFor();
  expect(await section.getByRole("button", { name: /Repair|Register/ }).count()).toBe(0);
  await check(page, "webhooks-well");
  await switchOff(hook, "acme/web");
  // Somebody else's request to its address has it looked at.
  const r = await fetch(hook.url, {
    method: "POST",
    headers: {
      "X-Event-Key": "repo:push",
      "X-Hook-UUID": "85d08b4e-571d-44e9-a507-fa476535aa98",
      "X-Hub-Signature": `sha256=${"0".repeat(64)}`,
    },
    body: "{}",
  });
  expect(r.status).toBe(401);
  const first = rows.first();
  await first.getByText("Switched off on Bitbucket").waitFor();
  await first.getByRole("link", { name: "acme/web webhook settings" }).waitFor();
  await first.getByText(/press Repair/).waitFor();
  await first.getByText(/since/).waitFor();
  await first.scrollIntoViewIfNeeded();
  await check(page, "webhooks-off");
  await page.setViewportSize({ width: 390, height: 800 });
  await first.scrollIntoViewIfNeeded();
  await check(page, "webhooks-off-390");
  await page.setViewportSize({ width: 1280, height: 860 });
  await first.getByRole("button", { name: "Repair the webhook of acme/web" }).click();
  await section.getByText("Switched off on Bitbucket").waitFor({ state: "detached" });
  await section.getByText(/it was switched off\. Devpilot put it right/).waitFor();
  expect((await hookOf("web")).health).toBe("REGISTERED");
  // Deliveries come again.
  await s.stack.push("acme/web", "main", "After the repair");
  await eventually("the push is live", async () => (await web()).live?.number === 3);
  s.calm();
});

test("deliveries are found by day, their bodies shown, and several replayed: the newest is live in the end", async () => {
  await s.visit("apps/web?tab=deliveries");
  const table = page.getByRole("table");
  await table.getByText("After the repair").waitFor();
  await table.getByText("delivery 2", { exact: true }).first().waitFor();
  const filters = page.getByRole("search", { name: "Deliveries" });
  const day = await page.evaluate(() => {
    const now = new Date();
    const two = (n: number) => String(n).padStart(2, "0");
    return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  });
  await filters.getByLabel("To").fill("2020-01-01");
  await page.getByText("No delivery is like that.").waitFor();
  await filters.getByLabel("To").fill(day);
  await filters.getByLabel("From").fill(day);
  await filters.getByLabel("Outcome").selectOption("DEPLOYED");
  await table.getByText("After the repair").waitFor();
  expect(page.url()).toContain(`from=${day}`);
  await check(page, "deliveries-by-day");
  await page.setViewportSize({ width: 390, height: 800 });
  await check(page, "deliveries-390");
  await page.setViewportSize({ width: 1280, height: 860 });
  // The body, for an admin.
  await table.getByRole("button", { name: "Body of delivery 2" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("After the repair").waitFor();
  await dialog.getByText(/noted under Activity/).waitFor();
  await check(page, "delivery-body");
  await dialog.getByRole("button", { name: "Close" }).click();
  await dialog.waitFor({ state: "detached" });
  // Both again, the oldest first: the newest is live in the end, as it was.
  const before = (await web()).live?.commit?.hash;
  await page.getByRole("button", { name: "Replay several…" }).click();
  await page.getByLabel("First").fill("3");
  await page.getByRole("dialog").getByRole("status").getByText("The last one is before the first.").waitFor();
  await page.getByLabel("First").fill("1");
  await check(page, "replay-several");
  await page.getByRole("dialog").getByRole("button", { name: "Replay", exact: true }).click();
  await page.getByText("2 deliveries are considered again").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await eventually(
    "both replays are noted",
    async () => (await table.getByText("considered again once").count()) === 2,
  );
  await eventually("what was newest to be live", async () => {
    const { live, latest } = await web();
    const ended = latest?.state !== "PENDING" && latest?.state !== "PROCESSING";
    return ended && latest?.commit?.hash === before && live?.commit?.hash === before;
  });
  s.calm();
});
