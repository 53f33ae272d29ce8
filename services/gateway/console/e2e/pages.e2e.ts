// Every page with apps of every kind in it: at a desk's width and a telephone's, in both colour schemes,
// nothing that axe finds, nothing that scrolls sideways. With CONSOLE_SHOTS a picture of each is kept.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, focused, focusIn, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

const long = "landing-page-of-the-autumn-campaign-with-a-long-name-2026-europe".slice(0, 63);
const build = { name: "build", stage: "POST_SOURCE_CONTROL" };
const passing = "echo '> web@1.0.0 build'; for i in 1 2 3 4 5 6; do echo bundled part $i of 6; done";
const failing = `${passing}; echo "src/index.ts(4,1): error TS2304: Cannot find name 'wep'." >&2; exit 3`;

let s: Scene;
let page: Page;

interface Deployment {
  number: number;
  state: string;
}
const at = (app: string, rest = "") => `/v1/workspaces/default/apps/${app}${rest}`;
const patch = (app: string, body: unknown) => s.stack.api("PATCH", at(app), body);
const become = (app: string, number: number, ...states: string[]) =>
  eventually(`#${number} of ${app} to be ${states.join(" or ")}`, async () =>
    states.includes((await s.stack.api<Deployment>("GET", at(app, `/deployments/${number}`))).state),
  );
const create = async (appId: string, fullName: string, branch: string, autoDeploy: boolean) => {
  await createApp(s.stack, appId, fullName, false, branch);
  if (!autoDeploy) await patch(appId, { autoDeploy });
};

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  await createApp(s.stack, "api", "acme/api", true);
  await createApp(s.stack, "notes", "jane-dev/notes", true);
  await createApp(s.stack, "docs", "acme/docs", true);
  await createApp(s.stack, "legacy", "acme/legacy", true);
  await create("api-staging", "acme/api", "staging", true);
  await create(long, "acme/web", "release/*", true);
  await createApp(s.stack, "shop", "jane-dev/site", true);

  await patch("web", { hooks: [{ ...build, command: passing }], serve: { directory: "." } });
  await s.stack.push("acme/web", "main", "Add a table of prices");
  await become("web", 2, "COMPLETED");
  await patch("docs", { autoDeploy: false });
  await s.stack.push("acme/docs", "main", "Explain how rollbacks work, and what they leave as it was");
  await s.stack.push("acme/api", "main", "Answer with 404 where nothing is");
  await become("api", 2, "COMPLETED");
  await s.stack.api("POST", at("api:rollback"), { deployment: 1, pauseAutoDeploy: true });
  await become("api", 3, "COMPLETED");
  await patch("web", { hooks: [{ ...build, command: failing }] });
  await s.stack.push("acme/web", "main", "Say who we are, where we come from and what we would like to be one day");
  await become("web", 3, "FAILED");
  await patch("shop", { hooks: [{ ...build, command: "echo waiting for the kettle; sleep 900" }] });
  await s.stack.api("POST", at("shop", "/deployments"), {});
  await become("shop", 2, "PROCESSING");
});

afterAll(() => s?.end());

/** What a reader sees: everything loaded, also what is loaded when it is seen. */
async function settled(): Promise<void> {
  await page.locator("main h1").first().waitFor();
  for (let y = 0; y < 6; y++) await page.evaluate((n) => scrollTo(0, n * 500), y);
  await expect.poll(() => page.locator(".skeleton").count()).toBe(0);
  await page.evaluate(() => scrollTo(0, 0));
}

/** Drawings are drawings: characters that look like one are read aloud, and differ from system to system. */
const glyphs = /[✓✔✕✗✖◐◌⊘↷↶○●⊖▲△▼▶◀▾▸⋯]/u;

/** What reaches beyond the window's right edge, where the page scrolls sideways for it. */
async function tooWide(): Promise<string[]> {
  return page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    const beyond = Array.from(document.querySelectorAll("main *")).filter(
      (e) => e.getBoundingClientRect().right > clientWidth,
    );
    return [`${scrollWidth} px`, ...beyond.slice(0, 5).map((e) => e.outerHTML.slice(0, 120))];
  });
}

async function everywhere(name: string): Promise<void> {
  await settled();
  await check(page, name, true);
  expect.soft(await page.locator("body").innerText(), `${name} has no placeholder glyphs`).not.toMatch(glyphs);
  await page.setViewportSize({ width: 320, height: 700 });
  await settled();
  expect.soft(await tooWide(), `${name} scrolls sideways at 320 px`).toEqual([]);
  await page.setViewportSize({ width: 390, height: 844 });
  await settled();
  await check(page, `${name}-390`, true);
  await page.setViewportSize({ width: 1280, height: 860 });
}

test.each([
  ["apps", "apps"],
  ["apps-filtered", "apps?state=failing"],
  ["new-app", "apps/new"],
  ["app-failed", "apps/web"],
  ["app-behind", "apps/docs"],
  ["app-rolled-back", "apps/api"],
  ["app-deploying", "apps/shop"],
  ["app-never-deployed", `apps/${long}`],
  ["app-in-sync", "apps/notes"],
  ["deployments", "apps/web?tab=deployments"],
  ["deliveries", "apps/web?tab=deliveries"],
  ["settings-general", "apps/web?tab=settings"],
  ["settings-hooks", "apps/web?tab=settings&section=hooks"],
  ["settings-rules", "apps/web?tab=settings&section=rules"],
  ["settings-options", "apps/web?tab=settings&section=options"],
  ["deployment-failed", "apps/web/deployments/3"],
  ["deployment-completed", "apps/web/deployments/2"],
  ["deployment-running", "apps/shop/deployments/2"],
  ["deployment-rollback", "apps/api/deployments/3"],
  ["why", "why?app=web&deployment=3"],
  ["activity", "activity"],
  ["integrations", "settings/integrations"],
  ["notifications", "settings/notifications"],
  ["not-found", "nowhere"],
])("%s", async (name, path) => {
  await page.goto(s.at(path));
  await everywhere(name);
  s.calm();
});

test("a row of the apps opens wherever it is pressed, and by keyboard", async () => {
  await page.goto(s.at("apps"));
  const row = page.getByRole("listitem").filter({ has: page.getByRole("link", { name: "web", exact: true }) });
  await row.getByText("Hook build, exit 3").waitFor();
  const box = await row.boundingBox();
  if (box === null) throw new Error("no row");
  await page.mouse.click(box.x + box.width - 4, box.y + 4);
  await page.waitForURL("**/apps/web");
  await page.goto(s.at("apps"));
  const links = page.getByRole("list", { name: "Apps" }).getByRole("link");
  await links.first().waitFor();
  expect(await links.count()).toBe(8); // one a row
  expect(await links.first().innerText()).toBe("web"); // what fails is on top
  await page.keyboard.press("j");
  await focused(links.first());
  await page.keyboard.press("j");
  await focused(links.nth(1));
  await page.keyboard.press("k");
  await focused(links.first());
  await page.keyboard.press("Enter");
  await page.waitForURL("**/apps/web");
  s.calm();
});

test("a row has a menu, by keyboard too, and is two lines on a phone", async () => {
  await page.goto(s.at("apps"));
  const row = page.getByRole("listitem").filter({ has: page.getByRole("link", { name: "web", exact: true }) });
  const button = row.getByRole("button", { name: "More about web" });
  await button.focus();
  await page.keyboard.press("Enter");
  const menu = page.getByRole("menu", { name: "More about web" });
  await focused(menu.getByRole("menuitem", { name: "Deploy latest" }));
  expect(await menu.getByRole("menuitem").allInnerTexts()).toEqual([
    "Deploy latest",
    "Open the live site",
    "Why is it not live?",
    "Deployments",
    "Deliveries",
    "Settings",
  ]);
  await check(page, "apps-menu");
  await page.keyboard.press("Escape");
  await menu.waitFor({ state: "detached" });
  await focused(button);
  await page.keyboard.press("Enter");
  await focused(menu.getByRole("menuitem", { name: "Deploy latest" }));
  await page.keyboard.press("End");
  await focused(menu.getByRole("menuitem", { name: "Settings" }));
  await page.keyboard.press("Enter");
  await page.waitForURL("**/apps/web?tab=settings");
  await page.goto(s.at("apps"));
  await button.click();
  await menu.getByRole("menuitem", { name: "Why is it not live?" }).click();
  await page.waitForURL("**/why?*");

  await page.setViewportSize({ width: 390, height: 844 });
  await page.goto(s.at("apps"));
  const line = async (what: string) => (await row.locator(what).boundingBox()) ?? { y: 0, height: 0 };
  await row.getByText("Hook build, exit 3").waitFor();
  const [state, name, why] = [await line(".pill"), await line(".row-link"), await line(".what")];
  expect(Math.abs(state.y + state.height / 2 - name.y - name.height / 2)).toBeLessThan(4); // one line
  expect(why.y).toBeGreaterThanOrEqual(name.y + name.height); // and below it the other
  const lines = (e: Element) => e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight);
  for (const reason of await page.locator(".app-row > .what").all())
    expect(await reason.evaluate(lines)).toBeLessThan(1.5); // a letter of another font may be a little higher
  expect(await row.locator(".from").isVisible()).toBe(false);
  await page.setViewportSize({ width: 1280, height: 860 });
  s.calm();
});

test("Save is grey until something changed, and what is not saved is not left unasked", async () => {
  await page.goto(s.at("apps/web?tab=settings"));
  const save = page.getByRole("button", { name: "Save", exact: true });
  const field = page.getByLabel("Releases to keep");
  await field.waitFor();
  expect(await save.getAttribute("aria-disabled")).toBe("true");
  await field.fill("7");
  expect(await save.getAttribute("aria-disabled")).toBeNull();
  // It stays in sight, also where the window shows the form's beginning only.
  await page.setViewportSize({ width: 1280, height: 500 });
  await page.evaluate(() => scrollTo(0, 0));
  const bar = await save.boundingBox();
  expect((bar?.y ?? 500) + (bar?.height ?? 0)).toBeLessThanOrEqual(500);
  await page.setViewportSize({ width: 1280, height: 860 });

  const asked = page.getByRole("alertdialog", { name: "Leave without saving?" });
  await page.getByRole("link", { name: "Rules" }).click();
  await check(page, "settings-unsaved");
  await asked.getByRole("button", { name: "Stay" }).click();
  await asked.waitFor({ state: "detached" });
  expect(await field.inputValue()).toBe("7");
  expect(new URL(page.url()).search).toBe("?tab=settings");
  await page.getByRole("button", { name: "Discard" }).click();
  expect(await field.inputValue()).toBe("5");
  await page.getByRole("link", { name: "Rules" }).click(); // nothing to lose, nothing asked
  await page.getByRole("heading", { name: "Which pushes deploy" }).waitFor();
  // In a card it is in sight as a whole too.
  await page.goto(s.at("apps/web?tab=settings&section=hooks"));
  await save.waitFor();
  const whole = await save.boundingBox();
  expect((whole?.y ?? 860) + (whole?.height ?? 0)).toBeLessThanOrEqual(860);
  await page.goto(s.at("apps/web?tab=settings&section=rules"));
  await page.getByRole("link", { name: "General" }).click();
  await field.fill("8");
  await page.goBack();
  await focusIn(asked);
  await page.keyboard.press("Escape");
  await asked.waitFor({ state: "detached" });
  expect(await field.inputValue()).toBe("8");
  await page.goBack();
  await asked.getByRole("button", { name: "Leave" }).click();
  await page.getByRole("heading", { name: "Which pushes deploy" }).waitFor();
  expect(new URL(page.url()).search).toContain("section=rules");
  s.calm();
});

test("the log goes from match to match and to a line, and tells when each line came", async () => {
  await page.goto(s.at("apps/web/deployments/3"));
  await page.getByText("End of the log: failed.").waitFor();
  await page.getByRole("searchbox", { name: "Search the log" }).fill("bundled part");
  await page.getByText("1 of 6 lines").waitFor();
  await page.getByRole("button", { name: "Next match" }).click();
  await page.getByText("2 of 6 lines").waitFor();
  await page.getByRole("button", { name: "Previous match" }).click();
  await page.getByRole("button", { name: "Previous match" }).click();
  await page.getByText("6 of 6 lines").waitFor();
  await page.getByRole("textbox", { name: "Go to line" }).fill("13");
  await page.getByRole("textbox", { name: "Go to line" }).press("Enter");
  await page.locator(".line.target").getByText("Cannot find name").waitFor();
  expect(new URL(page.url()).hash).toBe("#L13");
  const time = page.locator(".line.target time");
  const [shown, at, title] = [
    await time.innerText(),
    await time.getAttribute("datetime"),
    await time.getAttribute("title"),
  ];
  expect(shown).toMatch(/^\d\d:\d\d:\d\d$/);
  expect(title).toContain(`(${(at ?? "").slice(11, 19)} UTC)`);
  const height = await page
    .locator(".line-row")
    .nth(1)
    .evaluate((e) => e.getBoundingClientRect().height);
  expect(height).toBe(20);

  const stages = page.getByRole("list", { name: "Stages", exact: true });
  expect(await stages.getByText("After fetching").count()).toBe(1);
  expect(await stages.getByText("Before anything").count()).toBe(0);
  await page.getByText("4 stages without hooks").click();
  await page.getByRole("list", { name: "Stages without hooks" }).getByText("Before anything").waitFor();
  // The hook's own words, not what Devpilot says around them.
  const last = await page.getByLabel("Last lines of the failed step").locator("bdi").allInnerTexts();
  expect(last.at(-1)).toContain("Cannot find name 'wep'.");
  expect(last.join("\n")).not.toContain("Running hook");
  s.calm();
});

test("the week of the workspace and of an app's deliveries is drawn, and said in a table", async () => {
  await page.goto(s.at("apps"));
  await settled();
  const week = page.getByRole("list", { name: "Deployments by day and outcome, oldest first" });
  const today = week.getByRole("img").last();
  await today.waitFor();
  expect(await week.getByRole("img").count()).toBe(7);
  const word = (await today.getAttribute("aria-label")) ?? "";
  expect(word).toMatch(/: \d+ completed, 1 deploying, 1 failed$/);
  await today.focus();
  await page.keyboard.press("ArrowLeft");
  await focused(week.getByRole("img").nth(5));
  expect(await week.getByRole("img").nth(5).getAttribute("aria-label")).toMatch(/: none$/);
  await page.getByText("As a table").click();
  const rows = page.getByRole("table", { name: "Deployments by day and outcome, newest first" }).getByRole("row");
  await expect.poll(() => rows.count()).toBe(8);
  expect((await rows.nth(1).innerText()).split(/\t/).slice(1)).toEqual([/(\d+) completed/.exec(word)?.[1], "1", "1"]);
  await page.goto(s.at("apps/web"));
  await settled();
  const days = page.getByRole("list", { name: "Deliveries by day and outcome, oldest first" });
  expect(await days.getByRole("link").last().getAttribute("aria-label")).toMatch(/: 1 deployed, 1 failed$/);
  await days.getByRole("link").last().click();
  await page.waitForURL("**/apps/web?tab=deliveries");
  s.calm();
});
