// Every page with apps of every kind in it: at a desk's width and a telephone's, in both colour schemes,
// nothing that axe finds, nothing that scrolls sideways. With CONSOLE_SHOTS a picture of each is kept.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, scene, type Scene } from "./browser";
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
