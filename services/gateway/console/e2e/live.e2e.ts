// The live log: a slow deployment is followed, a broken connection loses and repeats nothing, and a
// reader who scrolled up is left alone.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { grant, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await page.goto(s.at("settings/integrations"));
  await grant(s.stack, page);
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
  await s.stack.control("POST", "faults", { route: "git", delay: "2500ms" });
  await page.goto(s.at("apps/web"));
  await page.getByRole("button", { name: "Deploy latest" }).click();
  await page.waitForURL(/\/deployments\/[0-9]+$/);
  const n = Number(/[0-9]+$/.exec(page.url())?.[0]);
  await page.getByText("Deploying").waitFor();
  await page.getByText("Fetching branch main of acme/web.").waitFor();
  expect(await page.getByText("End of the log").count()).toBe(0);
  await s.watch.expecting(/ERR_|Failed to load resource/, async () => {
    // The wire breaks in the middle, and for a while nobody answers.
    s.stack.cut(true);
    await page.getByText("The connection was interrupted; the log goes on from the same line.").or(page.getByText("The log cannot be read now; Devpilot is asked again.")).waitFor();
    s.stack.mend();
    await eventually("the log to go on", async () => (await page.getByText(/interrupted|cannot be read now/).count()) === 0);
    // Once more, at once back.
    s.stack.cut();
    await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
    await eventually("the page to be live again", async () => (await page.getByText("Completed").count()) > 0);
  });
  await s.stack.control("DELETE", "faults");
  const lines = await stored(n);
  expect(await numbers()).toEqual(lines.map((_, i) => i + 1));
  expect(await page.locator(".line-text").allTextContents()).toEqual(lines);
  expect(lines.length).toBeGreaterThan(3);
  s.calm();
});

test("the log follows its end until the reader scrolls up, and again once back at the end", async () => {
  // A log of any length at any pace: the stream is the test's, the page and its reader are real.
  // Each connection breaks after what it sent, and the next one sends all of it again.
  let most = 0;
  let told = 0;
  const record = (line: number) => `id: ${line}\nevent: record\ndata: ${JSON.stringify({ line, stage: "SOURCE_CONTROL", stream: "STDOUT", text: `line number ${line}` })}\n\n`;
  await page.route(/\/log\?.*follow=true/, async (route) => {
    await eventually("more lines", async () => Math.abs(most) > told);
    told = Math.abs(most);
    let body = "retry: 50\n\n";
    for (let line = 1; line <= told; line++) body += record(line);
    if (most < 0) body += `event: end\ndata: {"end":{"state":"COMPLETED"}}\n\n`;
    await route.fulfill({ status: 200, contentType: "text/event-stream", body });
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
