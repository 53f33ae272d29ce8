// Pictures of an app's deployments: drawn when seen, used by mouse and keyboard, told in words too.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, focused, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: [{ name: "build", stage: "POST_SOURCE_CONTROL", command: "exit 3" }],
  });
  await deploy("FAILED");
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { hooks: [] });
  await deploy("COMPLETED");
  for (const number of [4, 5]) {
    await s.stack.push("acme/web", "main", `Push ${number}`);
    await ends(number, "COMPLETED");
  }
});

afterAll(() => s?.end());

interface Deployment {
  number: number;
  state: string;
  commit?: { hash: string };
}

async function deploy(state: string): Promise<void> {
  const { number } = await s.stack.api<Deployment>("POST", "/v1/workspaces/default/apps/web/deployments", {});
  await ends(number, state);
}

async function ends(number: number, state: string): Promise<void> {
  await eventually(
    `#${number} to end as ${state}`,
    async () =>
      (await s.stack.api<Deployment>("GET", `/v1/workspaces/default/apps/web/deployments/${number}`)).state === state,
  );
}

const dots = () => page.getByRole("list", { name: "From push to live, oldest first" });
const bars = () => page.getByRole("list", { name: "Duration and outcome by deployment, oldest first" });

test("the pictures are loaded when they come into sight, by one request", async () => {
  const asked: string[] = [];
  page.on("request", (r) => {
    if (/\/assets\/charts-|\/deployments\?.*pageSize=50/.test(r.url())) asked.push(r.url());
  });
  await page.setViewportSize({ width: 390, height: 150 });
  await page.goto(s.at("apps/web"));
  await page.getByRole("heading", { name: "Recent deployments" }).waitFor();
  await page.getByRole("table").getByRole("link", { name: "#1" }).waitFor();
  expect(asked).toEqual([]);
  await page.getByRole("heading", { name: "Auto-deploy" }).scrollIntoViewIfNeeded();
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight / 3));
  await bars().waitFor();
  expect(asked.filter((url) => url.includes("pageSize=50"))).toHaveLength(1);
  expect(asked.some((url) => url.includes("/assets/charts-"))).toBe(true);
  s.calm();
});

/** A duration in the console's words: a machine at its ease is quicker than a tenth of a second. */
const time = String.raw`(?:under 0\.1 s|\d\.\d s|\d+ s|\d+ min \d+ s)`;

test("each bar names its deployment's number, outcome, duration and commit", async () => {
  const { deployments } = await s.stack.api<{ deployments: Deployment[] }>(
    "GET",
    "/v1/workspaces/default/apps/web/deployments?pageSize=50",
  );
  const words: Record<string, string> = { COMPLETED: "Completed", FAILED: "Failed" };
  const links = bars().getByRole("link");
  const names = await links.evaluateAll((all) => all.map((a) => a.getAttribute("aria-label")));
  expect(names).toHaveLength(5);
  for (const [i, d] of deployments.toReversed().entries()) {
    const commit = (d.commit?.hash ?? "").slice(0, 7);
    expect(names[i]).toMatch(new RegExp(`^#${d.number}: ${words[d.state]}, ${time}.*, commit ${commit}`));
  }
  const heights = await bars()
    .locator(".bar-full")
    .evaluateAll((all) => all.map((r) => r.getBoundingClientRect().height));
  expect(Math.min(...heights)).toBeGreaterThan(0);
  await page.getByText("As a table").first().click();
  const table = page.getByRole("table", { name: "Duration and outcome by deployment, newest first" });
  const rows = table.getByRole("row").filter({ has: page.getByRole("rowheader") });
  await expect.poll(() => rows.count()).toBe(5);
  for (const [i, d] of deployments.entries()) {
    const row = (await rows.nth(i).innerText()).replace(/\s+/g, " ");
    for (const said of [`#${d.number}`, words[d.state], " s ", (d.commit?.hash ?? "").slice(0, 7)])
      expect(row).toContain(said);
  }
});

test("pushes, and only they, are drawn from push to live, with their median", async () => {
  const names = await dots()
    .getByRole("link")
    .evaluateAll((all) => all.map((a) => a.getAttribute("aria-label") ?? ""));
  expect(names.map((n) => n.replace(new RegExp(time), "…").replace(/[0-9a-f]{7}$/, "…"))).toEqual([
    "#4: live … after its push, commit …",
    "#5: live … after its push, commit …",
  ]);
  await page.getByText(new RegExp(`^${time} in the median of 2 pushes$`)).waitFor();
  await page.getByRole("region", { name: "From push to live" }).getByText("As a table").click();
  const table = page.getByRole("table", { name: "From push to live, newest first" });
  await expect.poll(() => table.getByRole("rowheader").allInnerTexts()).toEqual(["#5", "#4"]);
  s.calm();
});

test("the pictures fit both colour schemes, a desk and a telephone", async () => {
  await page.setViewportSize({ width: 1280, height: 860 });
  await check(page, "app-charts");
  await page.setViewportSize({ width: 390, height: 844 });
  await check(page, "app-charts-phone");
  await page.setViewportSize({ width: 1280, height: 860 });
  s.calm();
});

test("arrows go from bar to bar, Enter and a click open the deployment", async () => {
  const links = bars().getByRole("link");
  await links.last().focus();
  await page.keyboard.press("ArrowLeft");
  await focused(links.nth(3));
  expect(await links.evaluateAll((all) => all.map((a) => a.getAttribute("tabindex")))).toEqual([
    "-1",
    "-1",
    "-1",
    "0",
    "-1",
  ]);
  await page.keyboard.press("Home");
  await focused(links.first());
  await page.keyboard.press("Enter");
  await page.waitForURL("**/apps/web/deployments/1");
  await page.getByText("End of the log: completed.").waitFor(); // the page itself: its address comes before it
  await s.visit("apps/web");
  // Anywhere in a bar's column, above a short bar too.
  const column = await bars().locator(".mark-place").nth(1).boundingBox();
  if (column === null) throw new Error("no column");
  await page.mouse.click(column.x + column.width / 2, column.y + 2);
  await page.waitForURL("**/apps/web/deployments/2");
  s.calm();
});
