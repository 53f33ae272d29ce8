// A log of 200,000 lines, read while a deployment hook prints it: what is drawn and searched depends on
// what is seen and new. Counts are asserted; how long a reader waits is printed, here and by `make bench`.
import { readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

const printed = 200_000;
// The hook prints in parts and waits before each but the first until the test lets it go on.
const ends = [40_000, 160_000, printed];
// What a window of 860 pixels shows, and as much above and below again.
const mostRows = 120;

let s: Scene;
let page: Page;
const figures: Record<string, string> = {};

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", false);
  const parts = ends.map((end, n) => {
    const begin = n === 0 ? 1 : (ends[n - 1] ?? 0) + 1;
    const wait = n === 0 ? "" : `touch waits-${n}; until [ -e go-${n} ]; do sleep 0.1; done; `;
    return `${wait}for i in $(seq ${begin} 2500 ${end}); do seq -f 'part %.0f of it' $i $((i+2499)); sleep 0.05; done`;
  });
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: [{ name: "long", stage: "POST_SOURCE_CONTROL", command: parts.join("; ") }],
  });
});

afterAll(async () => {
  await s?.end();
  const width = Math.max(...Object.keys(figures).map((k) => k.length)) + 2;
  console.log(
    Object.entries(figures)
      .map(([k, v]) => `  ${k.padEnd(width)} ${v}`)
      .join("\n"),
  );
});

interface Seen {
  rows: number;
  back: number;
  tasks: number[];
  keys: number[];
}
const seen = () => page.evaluate(() => (globalThis as unknown as { seen: Seen }).seen);

/** From here on the page counts its rows, the steps back of a log that is followed, long tasks, and waits for keys. */
async function observe(): Promise<void> {
  await page.evaluate(() => {
    const seen: Seen = { rows: 0, back: 0, tasks: [], keys: [] };
    (globalThis as unknown as { seen: Seen }).seen = seen;
    const list = document.querySelector(".lines");
    if (list === null) throw new Error("no log");
    let top = 0;
    list.addEventListener("scroll", () => {
      if (list.scrollTop < top) seen.back++;
      top = list.scrollTop;
    });
    new MutationObserver(() => {
      seen.rows = Math.max(seen.rows, list.querySelectorAll(".line").length);
    }).observe(list, { childList: true, subtree: true });
    new PerformanceObserver((l) => {
      seen.tasks.push(...l.getEntries().map((e) => e.duration));
    }).observe({ type: "longtask" });
    new PerformanceObserver((l) => {
      for (const e of l.getEntries()) if (e.name.startsWith("key")) seen.keys.push(e.duration);
    }).observe({ type: "event", durationThreshold: 16 } as PerformanceObserverInit);
  });
}

const lines = () => page.getByRole("group", { name: "Lines of the log" });
const field = () => page.getByRole("searchbox", { name: "Search the log" });
const found = () => page.locator(".log-bar [role=status]");
const scanned = async () => Number(await found().getAttribute("data-scanned"));
const height = () => lines().evaluate((e) => e.scrollHeight);
const part = (n: number) => page.locator(".line").getByText(`part ${n} of it`, { exact: true });
/** Whether the row is in sight, not only in the page. */
const inSight = (n: number) =>
  part(n).evaluateAll((all) => {
    const box = document.querySelector(".lines")?.getBoundingClientRect();
    const row = all[0]?.getBoundingClientRect();
    return box !== undefined && row !== undefined && row.top >= box.top - 1 && row.bottom <= box.bottom + 1;
  });

/** Lets the hook print its next part. */
async function goOn(n: number): Promise<void> {
  const marker = await eventually("the hook to wait", async () =>
    (await readdir(s.stack.data, { recursive: true })).find((f) => f.endsWith(`/waits-${n}`)),
  );
  await writeFile(join(s.stack.data, dirname(marker), `go-${n}`), "");
}

test("while it is printed it is followed, searched and left alone where the reader is", async () => {
  await s.visit("apps/web");
  await page.getByRole("button", { name: "Deploy latest" }).first().click();
  await page.waitForURL(/\/deployments\/1$/);
  await page.locator(".line").first().waitFor({ timeout: 60_000 });
  const began = Date.now();
  await observe();
  await eventually("the first part", async () => (await height()) > 20 * (ends[0] ?? 0));
  const followed = await seen();
  expect(followed.back, "steps back while the end was followed").toBe(0);

  // What is typed is there at once, and what was found grows with the log.
  await field().pressSequentially("part 4999 of", { delay: 30 });
  await found()
    .getByText(/1 of 1 lines/)
    .waitFor();
  await field().press("Enter");
  await eventually("the line that was found", () => inSight(4_999));
  await page.getByRole("button", { name: "Follow" }).waitFor();
  const [top, before] = [await lines().evaluate((e) => e.scrollTop), await height()];
  await goOn(1);
  await eventually("more lines", async () => (await height()) > before + 20 * 5_000);
  expect(await lines().evaluate((e) => e.scrollTop)).toBe(top);
  expect(await inSight(4_999)).toBe(true);
  await page.getByRole("button", { name: "Follow" }).click();

  // From here one query stays while all the rest comes: it looks at each line once.
  await field().fill("of it");
  const others = await scanned();
  await goOn(2);
  await page.getByText("End of the log: completed.").waitFor({ timeout: 240_000 });
  figures["Lines a second, as they were shown"] = (printed / ((Date.now() - began) / 1000)).toFixed(0);
  await eventually("the search to reach the end", async () => !((await found().textContent()) ?? "").includes("…"));
  const all = await page.evaluate(
    async (path) => ((await (await fetch(path)).text()).match(/\n/g) ?? []).length,
    "/v1/workspaces/default/apps/web/deployments/1/log?format=text",
  );
  expect(all).toBeGreaterThanOrEqual(printed);
  expect((await scanned()) - others, "lines looked at by a query").toBeLessThanOrEqual(all);

  const { rows, tasks, keys } = await seen();
  expect(rows, "rows in the page").toBeGreaterThan(10);
  expect(rows, "rows in the page").toBeLessThan(mostRows);
  expect(await lines().evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight)).toBeLessThan(2);
  figures["Longest task while lines come"] = `${Math.max(0, ...tasks).toFixed(0)} ms`;
  figures["From a key to the next paint while lines come, worst"] = `${Math.max(16, ...keys).toFixed(0)} ms`;
  await check(page, "log-long");
  s.calm();
});

test("in its whole length the matches are gone through, and the end is one key away", async () => {
  await observe();
  const count = Number(/of (\d+) lines/.exec((await found().textContent()) ?? "")?.[1]);
  expect(count).toBeGreaterThan(printed - 1_000);
  // From the first match back to the last, and on to the first.
  await field().press("Shift+Enter");
  await found().getByText(`${count} of ${count} lines`).waitFor();
  await eventually("the last match", () => inSight(count));
  await field().press("Enter");
  await found().getByText(`1 of ${count} lines`).waitFor();
  await eventually("the first match", () => inSight(1));
  await field().press("Enter");
  await found().getByText(`2 of ${count} lines`).waitFor();
  const before = await scanned();
  await field().press("Enter");
  await found().getByText(`3 of ${count} lines`).waitFor();
  expect(await scanned(), "going on looks at no line").toBe(before);

  const start = Date.now();
  await field().fill("part 123456 of");
  await found().getByText("1 of 1 lines").waitFor();
  await eventually("the search to reach the end", async () => (await scanned()) >= before + printed);
  figures["One line found among 200,000"] = `${Date.now() - start} ms`;
  await field().press("Enter");
  await eventually("the line that was found", () => inSight(123_456));
  await lines().focus();
  await lines().press("End");
  await eventually("the end", () => lines().evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight < 2));
  await page.locator(".line").last().waitFor();
  const { rows } = await seen();
  expect(rows, "rows in the page").toBeLessThan(mostRows);

  // An address that names a line far down leads there.
  await field().fill("");
  await page.goto(s.at("apps/web/deployments/1#L150000"));
  await page.reload();
  await page.locator(".line.target").waitFor();
  await observe();
  await page.getByText("End of the log: completed.").waitFor({ timeout: 120_000 });
  await page.locator(".line.target").getByText("150000", { exact: true }).waitFor();
  s.calm();
});
