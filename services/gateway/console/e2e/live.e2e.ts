// What shows up by itself: the log of a slow deployment over broken connections, with the reader who
// scrolled up left alone; and, for an account that is no admin, the webhook that was added by hand.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, narrow, open, scene, signIn, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await s.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
});

afterAll(() => s?.end());

const numbers = async () => (await page.locator(".line-number").allTextContents()).map(Number);
/** The texts of the log as the API has it. */
const stored = async (n: number) =>
  (await (await s.context.request.get(`${s.stack.url}/v1/workspaces/default/apps/web/deployments/${n}/log`)).text())
    .trimEnd()
    .split("\n")
    .map((l) => JSON.parse(l) as { line?: number; text?: string; record?: { line: number; text: string } })
    .map((l) => l.record ?? l)
    .filter((l) => l.line !== undefined)
    .map((l) => l.text);

test("a slow deployment is followed and survives broken connections", async () => {
  // It writes until it is stopped, also while nobody can read it.
  const slow = {
    name: "slow",
    stage: "POST_SOURCE_CONTROL",
    command: "for i in $(seq 1000); do echo part $i; sleep 0.3; done",
  };
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks: [slow] });
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/[0-9]+$/);
  const n = Number(/[0-9]+$/.exec(page.url())?.[0]);
  await page.locator(".subline").getByText("Deploying").waitFor();
  await page.getByText("part 1", { exact: true }).waitFor();
  expect(await page.getByText("End of the log").count()).toBe(0);
  const interrupted = page.getByText("The connection was interrupted; the log goes on from the same line.");
  await s.watch.expecting(/ERR_|Failed to load resource/, async () => {
    // The wire breaks in the middle, and for a while nobody answers.
    s.stack.cut(true);
    await interrupted.waitFor();
    s.stack.mend();
    await interrupted.waitFor({ state: "detached" });
    // Once more, at once back.
    const before = Math.max(...(await numbers()));
    s.stack.cut();
    await eventually("the log to go on", async () => Math.max(...(await numbers())) > before + 3);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByText("End of the log: cancelled.").waitFor({ timeout: 60_000 });
    await page.locator(".subline").getByText("Cancelled").waitFor();
  });
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks: [] });
  const lines = await stored(n);
  // The lines in sight are those at the end, none twice and none missing; so is what cannot be seen.
  const shown = await numbers();
  expect(shown).toEqual(shown.map((_, i) => lines.length - shown.length + i + 1));
  expect(await page.locator(".line-text").allTextContents()).toEqual(lines.slice(-shown.length));
  await page.getByRole("searchbox", { name: "Search the log" }).fill("part ");
  const parts = lines.filter((l) => l?.startsWith("part ") === true);
  expect(parts).toEqual(parts.map((_, i) => `part ${i + 1}`));
  await page.getByText(`of ${parts.length} lines`).waitFor();
  s.calm();
});

test("the log follows its end until the reader scrolls up, and again once back at the end", async () => {
  // A log of any length at any pace: the stream is the test's, the page and its reader are real.
  // Each connection breaks after what it sent, and the next one sends all of it again.
  let most = 0;
  let told = 0;
  const record = (line: number) =>
    `${JSON.stringify({ line, stage: "SOURCE_CONTROL", stream: "STDOUT", text: `line number ${line}` })}\n`;
  await page.route(/\/log\?.*follow=true/, async (route) => {
    await eventually("more lines", async () => Math.abs(most) > told);
    told = Math.abs(most);
    let body = "";
    for (let line = 1; line <= told; line++) body += record(line);
    if (most < 0) body += `{"end":{"state":"COMPLETED"}}\n`;
    await route.fulfill({ status: 200, contentType: "application/x-ndjson", body });
  });
  await s.watch.expecting(/ERR_/, async () => {
    most = 300;
    await page.reload();
    const lines = page.getByRole("group", { name: "Lines of the log" });
    const shown = (n: number) => page.getByText(`line number ${n}`, { exact: true });
    await shown(300).waitFor();
    most = 400;
    await shown(400).waitFor();
    // Up: what comes now does not move the reader.
    await lines.hover();
    await page.mouse.wheel(0, -3000);
    await page.getByRole("button", { name: "Follow" }).or(page.getByText("End of the log")).waitFor();
    const top = await lines.evaluate((e) => e.scrollTop);
    const height = await lines.evaluate((e) => e.scrollHeight);
    most = 500;
    await eventually("the lines to come", async () => (await lines.evaluate((e) => e.scrollHeight)) > height);
    expect(await lines.evaluate((e) => e.scrollTop)).toBe(top);
    expect(await shown(500).count()).toBe(0);
    await page.getByRole("button", { name: "Follow" }).click();
    await shown(500).waitFor();
    // The wheel turns, and a jump to a line that has just come arrives before the page has moved.
    await lines.evaluate((e) => {
      e.dispatchEvent(new WheelEvent("wheel", { deltaY: -300, bubbles: true }));
      e.scrollTop = e.scrollHeight;
      e.dispatchEvent(new Event("scroll"));
    });
    await page.getByRole("button", { name: "Follow" }).waitFor();
    await lines.evaluate((e) => (e.scrollTop -= 300));
    const left = await lines.evaluate((e) => e.scrollTop);
    const tall = await lines.evaluate((e) => e.scrollHeight);
    most = 550;
    await eventually("more lines to come", async () => (await lines.evaluate((e) => e.scrollHeight)) > tall);
    expect(await lines.evaluate((e) => e.scrollTop)).toBe(left);
    await page.getByRole("button", { name: "Follow" }).click();
    await shown(550).waitFor();
    most = -600;
    await shown(600).waitFor();
    await page.getByText("End of the log: completed.").waitFor();
  });
  await page.unroute(/\/log\?.*follow=true/);
  // No line twice, none missing: the list is as long as the log.
  await page.getByRole("searchbox", { name: "Search the log" }).fill("line number");
  await page.getByText("of 600 lines").waitFor();
  s.calm();
});

test("a reader whom the address leads to the last line so far stays there when more come", async () => {
  let most = 200;
  let told = 0;
  const text = (line: number) =>
    `${JSON.stringify({ line, stage: "SOURCE_CONTROL", stream: "STDOUT", text: `line number ${line}` })}\n`;
  const following = /\/log\?.*follow=true/;
  await page.route(following, async (route) => {
    await eventually("more lines", async () => most > told);
    told = most;
    const body = Array.from({ length: told }, (_, i) => text(i + 1)).join("");
    const end = told > 200 ? `{"end":{"state":"COMPLETED"}}\n` : ""; // else the connection breaks
    await route.fulfill({ status: 200, contentType: "application/x-ndjson", body: body + end });
  });
  await s.watch.expecting(/ERR_/, async () => {
    await page.goto(`${new URL(page.url()).origin}${new URL(page.url()).pathname}#L200`);
    await page.reload();
    const lines = page.getByRole("group", { name: "Lines of the log" });
    const named = page.locator(".line.target");
    const inSight = async () => {
      const [line, all] = [await named.boundingBox(), await lines.boundingBox()];
      return line !== null && all !== null && line.y >= all.y && line.y + line.height <= all.y + all.height + 1;
    };
    await named.waitFor();
    await expect.poll(inSight).toBe(true);
    const height = await lines.evaluate((e) => e.scrollHeight);
    most = 600;
    await eventually("the lines to come", async () => (await lines.evaluate((e) => e.scrollHeight)) > 2 * height);
    await page.getByText("End of the log: completed.").waitFor();
    expect(await inSight()).toBe(true);
    expect(await page.getByText("line number 600", { exact: true }).count()).toBe(0);
    // Back at the end the reader is there by intent.
    await lines.focus();
    await lines.press("End");
    await page.getByText("line number 600", { exact: true }).waitFor();
  });
  await page.unroute(following);
  s.calm();
});

// The account may write to acme/docs, but is no admin of it.
const copied = () => page.evaluate(() => navigator.clipboard.readText());

test("a fresh page asks each question once, and hears of what happened while it loaded", async () => {
  // In a browser of its own: where another tab follows the workspace, this one has no stream.
  const context = await open(s.browser);
  await signIn(s.stack, context);
  const fresh = await context.newPage();
  const asked: string[] = [];
  fresh.on("request", (r) => {
    const { pathname, search } = new URL(r.url());
    if (pathname.startsWith("/v1/")) asked.push(pathname + search);
  });
  // The app changes after the page has read it and before its stream is there.
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  await fresh.route("**/events*", async (route) => {
    await released;
    await route.continue();
  });
  await fresh.goto(s.at("apps/web"));
  const box = fresh.getByRole("switch", { name: "Deploy on every push" });
  await box.waitFor();
  const before = await box.isChecked();
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { autoDeploy: !before });
  const firsts = [...asked];
  release();
  await eventually("the page to show the change", async () => (await box.isChecked()) !== before);
  const twice = (list: string[]) => list.filter((p, i) => list.indexOf(p) !== i);
  expect(twice(firsts)).toEqual([]);
  const apps = /\/(apps|activity)(\?|$)/;
  // A page with nothing new asks nothing again, though its stream came after its answers.
  asked.length = 0;
  const opened = fresh.waitForResponse(/\/events/);
  await fresh.goto(s.at("apps"));
  await opened;
  await fresh.getByRole("link", { name: "web", exact: true }).waitFor();
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { autoDeploy: before }); // concerns apps alone
  await eventually("the apps to be asked for again", async () => twice(asked).some((p) => apps.test(p)));
  const again = twice(asked).filter((p) => !apps.test(p));
  expect(asked).toContain("/v1/workspaces/default/integrations/bitbucket");
  expect(again).toEqual([]);
  await context.close();
});

test("the form says before saving that the webhook must be added by hand", async () => {
  await s.visit("apps/new");
  const field = page.getByRole("combobox", { name: "Repository" });
  await field.click();
  await page.getByRole("option", { name: /Docs/ }).click();
  await page.getByText("The connected account is not an admin of acme/docs").waitFor();
  await check(page, "new-app-not-admin");
  s.calm();
});

test("the steps are copied, followed, and the waiting turns green by itself", async () => {
  await createApp(s.stack, "docs", "acme/docs", true);
  await s.visit("apps/docs");
  const steps = page.getByRole("region", { name: "Add the webhook by hand" });
  await steps.getByText("Waiting for the first delivery…").waitFor();
  await check(page, "webhook-manual");
  await narrow(page, "webhook-manual");
  expect(await steps.getByRole("link", { name: "its webhook settings on Bitbucket" }).getAttribute("href")).toBe(
    `${s.stack.site}/acme/docs/admin/webhooks`,
  );

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
  await s.stack.control("POST", "repositories/acme/docs/hooks", {
    description: "by hand",
    url,
    secret,
    active: true,
    events: ["repo:push"],
  });
  await s.stack.push("acme/docs", "main", "The first that is delivered");
  await page
    .getByText("The first delivery came, and its signature was right.")
    .or(page.getByText("Added by hand"))
    .first()
    .waitFor({ timeout: 60_000 });
  await page.getByText(/last verified delivery/).waitFor();
  await check(page, "webhook-manual-works");
  await narrow(page, "webhook-manual-works");
  await page.locator(".headline").getByText("#2").waitFor({ timeout: 60_000 });
  await s.visit("activity");
  await page.getByText("webhook.revealSecret").first().waitFor();
  s.calm();
});
