// From nothing to a site that is looked at, a failure and the way back, by keyboard alone. The pictures of
// the README are made here: `make tour` takes them anew, and every run holds that they are there.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Locator, Page } from "playwright-core";
import { check, narrow, open, scene, Watch, type Scene } from "./browser";
import { eventually } from "./stack";
import { tour, tourIsWhole } from "./tour";

let s: Scene;
let page: Page;
let watch: Watch;

beforeAll(async () => {
  s = await scene("sample", false);
  const context = await open(s.browser, { viewport: { width: 1120, height: 720 } });
  watch = new Watch(context);
  page = await context.newPage();
  // A mouse would be noted, whatever page it is on.
  await page.exposeFunction("noteMouse", (what: string) => watch.problems.push(`a mouse: ${what}`));
  await page.addInitScript(() => {
    for (const kind of ["mousedown", "pointerdown", "touchstart"])
      addEventListener(
        kind,
        (e) => {
          if (e.isTrusted) (globalThis as unknown as { noteMouse: (what: string) => void }).noteMouse(kind);
        },
        true,
      );
  });
});

afterAll(() => s?.end());

/** Walks with Tab until the focus is on what is meant, and says what it passed where it is never reached. */
async function tabTo(target: Locator, key = "Tab"): Promise<void> {
  await target.first().waitFor();
  const passed: string[] = [];
  for (let i = 0; i < 120; i++) {
    if (await target.first().evaluate((e) => e === document.activeElement)) return;
    await page.keyboard.press(key);
    passed.push(await page.evaluate(() => document.activeElement?.textContent?.slice(0, 30) ?? ""));
  }
  throw new Error(`Tab never reaches it; it passed ${passed.slice(0, 40).join(" | ")}`);
}

async function press(target: Locator, key = "Enter"): Promise<void> {
  await tabTo(target);
  await page.keyboard.press(key);
}

/** What a visitor of an address sees. */
async function seen(url: string | null): Promise<string> {
  const visitor = await open(s.browser);
  const there = await visitor.newPage();
  await there.goto(url ?? "");
  const text = await there.locator("body").innerText();
  await visitor.close();
  return text;
}

const button = (name: string | RegExp) => page.getByRole("button", { name });
const app = (path = "") => `**/w/default/apps/web${path}`;

test("sign in and connect", async () => {
  await watch.expecting(/401/, async () => {
    await page.goto(`${s.stack.url}/w/default/settings/integrations`);
    await tabTo(page.getByLabel("Admin token or code"));
  });
  await check(page, "tour-sign-in");
  await page.keyboard.type(s.stack.adminToken);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Integrations" }).waitFor();
  await press(button("Connect"));
  await page.waitForURL(`${s.stack.site}/**`);
  const account = button(/jane-dev/);
  if (await account.isVisible()) await press(account);
  await press(button("Grant access"));
  await page.waitForURL("**/settings/integrations?bitbucket=connected");
  await page.getByText("Connected", { exact: true }).first().waitFor();
  await check(page, "tour-connected");
  await tour(page, "1-connected");
});

test("a new app is told what to serve, and its first release is looked at", async () => {
  await page.keyboard.press("n");
  await page.waitForURL("**/apps/new");
  await tabTo(page.getByRole("combobox", { name: "Repository" }));
  await page.keyboard.type("acme/web");
  await page.locator(".option[data-focused]", { hasText: "Web" }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByText("The repository has index.html.").waitFor();
  await press(button("Serve the whole repository"), "Space");
  expect(await page.getByLabel("Directory to serve").inputValue()).toBe(".");
  await check(page, "tour-new");
  await narrow(page, "tour-new");
  await page.setViewportSize({ width: 1120, height: 720 });
  await tour(page, "2-new-app");
  await press(button("Save and deploy"));
  await page.waitForURL(app("/deployments/1"));
  await page.getByText("End of the log: completed.").waitFor();
  await page.getByText("Served from").waitFor();
  await check(page, "tour-first");
  const site = await page.getByRole("link", { name: /^1--web\./ }).getAttribute("href");
  expect(await seen(site)).toContain("Hello from Web");
  await press(page.getByRole("link", { name: "web" }));
  await page.waitForURL(app());
  const link = page.locator("main .subline a").first(); // the page leads with it
  await link.waitFor();
  expect(await seen(await link.getAttribute("href"))).toContain("Hello from Web");
});

test("a push goes live by itself", async () => {
  await s.stack.push("acme/web", "main", "Say when we are open");
  await page.getByText("Say when we are open").first().waitFor();
  await eventually("the push to be live", async () => {
    const web = await s.stack.api<{ live?: { number: number } }>("GET", "/v1/workspaces/default/apps/web");
    return web.live?.number === 2;
  });
  await page.getByRole("region", { name: "How it stands" }).getByText("#2").first().waitFor();
  await check(page, "tour-live");
  await tour(page, "3-live");
});

test("a push that fails says why, and what was live before comes back", async () => {
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: [
      {
        name: "build",
        stage: "POST_SETUP",
        command: "echo \"src/index.ts(4,1): error TS2304: Cannot find name 'wep'.\" >&2; exit 3",
      },
    ],
  });
  await s.stack.push("acme/web", "main", "Break the build");
  await page.getByText("error TS2304").first().waitFor();
  await check(page, "tour-failed");
  await tour(page, "4-failed");
  await press(page.getByRole("region", { name: "How it stands" }).getByRole("link", { name: "#3" }));
  await page.waitForURL(app("/deployments/3"));
  await page.getByText("End of the log: failed.").waitFor();
  await check(page, "tour-log");
  await tour(page, "5-log");

  // Back to the first release, through the palette and the list.
  await page.keyboard.press("Control+k");
  const palette = page.getByRole("dialog", { name: "Jump to" });
  await palette.getByRole("option", { name: "web" }).first().waitFor();
  await page.keyboard.type("web #1");
  await palette.getByRole("option", { name: /1/ }).first().waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL(app("/deployments/1"));
  await press(button(/^Rollback to/));
  const dialog = page.getByRole("alertdialog");
  await press(dialog.getByRole("button", { name: /^Rollback to/ }));
  await eventually("the rollback to be live", async () => {
    const web = await s.stack.api<{ live?: { number: number } }>("GET", "/v1/workspaces/default/apps/web");
    return web.live?.number === 4;
  });
  await page.waitForURL(app("/deployments/4"));
  await dialog.waitFor({ state: "detached" });
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  await page.waitForURL("**/w/default/apps");
  await page.getByRole("link", { name: /web/ }).first().waitFor();
  await check(page, "tour-apps");
  await tour(page, "6-apps");
  expect(watch.problems).toEqual([]);
  await tourIsWhole();
});
