// No app at all, and more than two pages of them (many more would spend the calls that Bitbucket allows in an hour): what
// needs somebody comes first, anything is found, and no page asks for all pages.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, narrow, scene, type Scene } from "./browser";
import { eventually } from "./stack";

const apps = 120;
const repositories = 4;

let s: Scene;
let page: Page;
/** What was asked of the API since it was emptied: path and query below the workspace. */
let asked: string[] = [];

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  page.on("request", (r) => {
    const url = new URL(r.url());
    if (url.pathname.startsWith("/v1/")) asked.push(url.pathname.replace("/v1/workspaces/default/", "") + url.search);
  });
});

afterAll(() => s?.end());

const name = (n: number) => `app-${String(n).padStart(4, "0")}`;

/** Opens a page anew and waits for what it shows; says what that asked for, the same question once. */
async function opened(path: string, shown: () => Promise<unknown>): Promise<string[]> {
  asked = [];
  await page.goto(s.at(path));
  await shown();
  await page.waitForLoadState("load");
  // Once the stream is there the page looks again: what it asks for then is known by what it asked for before.
  return [...new Set(asked)];
}

test("a workspace without apps leads to the next step on every page", async () => {
  await page.goto(s.at("apps"));
  await page.getByRole("heading", { name: "Connect Bitbucket, then deploy" }).waitFor();
  await page.getByRole("link", { name: "Open Integrations" }).click();
  await page.getByRole("button", { name: "Connect", exact: true }).waitFor();
  await connect(s.stack, s.context);
  await s.visit("apps");
  await page.getByRole("heading", { name: "No apps yet" }).waitFor();
  await check(page, "many-none");
  await s.visit("why");
  await page.getByRole("heading", { name: /Why/ }).first().waitFor();
  await s.visit("apps");
  await page.keyboard.press("Control+k");
  await page.getByRole("searchbox", { name: "Page, app, deployment or workspace" }).fill("nothing of the kind");
  await page.getByText("Nothing here has this name.").waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("link", { name: "Create the first app" }).click();
  await page.getByRole("combobox", { name: "Repository" }).waitFor();
  s.calm();
});

test("many apps: those that need somebody first, without a walk through all pages", async () => {
  const list = await eventually("the repositories", async () => {
    const got = await s.stack.api<{ repositories: { id: string; fullName: string }[] }>(
      "GET",
      "/v1/workspaces/default/repositories",
    );
    const wanted = ["acme/web", "acme/api", "jane-dev/site", "jane-dev/notes"];
    const those = got.repositories.filter((r) => wanted.includes(r.fullName));
    return those.length === repositories && those;
  });
  const make = (appId: string, n: number, more: object = {}, deployNow = false) =>
    s.stack.api("POST", "/v1/workspaces/default/apps", {
      appId,
      app: { repository: list[n % repositories]?.id, branch: "main", autoDeploy: false, ...more },
      deployNow,
    });
  let next = 1;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (next <= apps) {
        const n = next++;
        await make(name(n), n);
      }
    }),
  );
  await make("zz-fails", 1, { hooks: [{ name: "build", stage: "POST_SOURCE_CONTROL", command: "exit 3" }] }, true);
  await eventually("it to fail", async () => {
    const a = await s.stack.api<{ need: string }>("GET", "/v1/workspaces/default/apps/zz-fails");
    return a.need === "FAILING";
  });

  const rows = page.getByRole("list", { name: "Apps" }).getByRole("listitem");
  const first = await opened("apps", () => rows.first().getByText("zz-fails").waitFor());
  expect(first.filter((q) => q.startsWith("apps?"))).toEqual(["apps?pageSize=50&orderBy=need"]);
  expect(first.filter((q) => /pageToken=./.test(q))).toEqual([]);
  expect(await rows.count()).toBe(50);
  const needs = page.getByRole("navigation", { name: "Apps by how they stand" });
  await needs.getByRole("link", { name: `All ${apps + 1}` }).waitFor();
  await needs.getByRole("link", { name: "Failing 1" }).waitFor();
  await check(page, "many-apps");
  await narrow(page, "many-apps");

  // One that somebody changes asks once for what is shown.
  asked = [];
  await s.stack.api("PATCH", `/v1/workspaces/default/apps/${name(7)}`, { retention: 9 });
  await expect.poll(() => asked.filter((q) => q.startsWith("apps")).length).toBeGreaterThan(0);
  expect(asked.filter((q) => q.startsWith("apps") && /pageToken=./.test(q))).toEqual([]);

  await page.getByRole("button", { name: "Load more" }).click();
  await expect.poll(() => rows.count()).toBe(100);
  // By keyboard: j goes down, Enter opens, Back is where one was.
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  const second = await page.evaluate(() => document.activeElement?.textContent);
  expect(second).toBe(name(1));
  await page.keyboard.press("Enter");
  await page.waitForURL(new RegExp(`/apps/${name(1)}$`));
  s.calm();
});

test("an app is found among many in the list, and the address keeps what was sought", async () => {
  await page.goto(s.at("apps"));
  const rows = page.getByRole("list", { name: "Apps" }).getByRole("listitem");
  await rows.nth(49).waitFor();
  asked = [];
  await page.getByRole("searchbox", { name: "Search apps" }).pressSequentially("0110");
  await expect.poll(() => rows.count()).toBe(1);
  await rows.getByText(name(110)).waitFor();
  expect(new URL(page.url()).search).toBe("?q=0110");
  expect(asked.filter((q) => q.startsWith("apps?") && q.includes("query=0110")).length).toBeGreaterThan(0);
  expect(asked.filter((q) => /pageToken=./.test(q))).toEqual([]);
  await page.reload();
  await expect.poll(() => rows.count()).toBe(1);
  expect(await page.getByRole("searchbox", { name: "Search apps" }).inputValue()).toBe("0110");
  await rows.getByRole("link", { name: name(110) }).click();
  await page.waitForURL(/apps\/app-0110$/);
  await page.goBack();
  await expect.poll(() => rows.count()).toBe(1);

  // A filter and a search together, and neither.
  await page.getByRole("link", { name: /^Failing 1/ }).click();
  await page.getByText("No app's name, repository or branch contains “0110”, of those in this state.").waitFor();
  await page.getByRole("link", { name: /^All / }).click();
  await expect.poll(() => rows.count()).toBe(1);
  s.calm();
});

test("no other page asks for all apps either", async () => {
  const seen: Record<string, string[]> = {};
  const heading = (text: string | RegExp) => () => page.getByRole("heading", { name: text }).first().waitFor();
  for (const [path, shown] of [
    ["activity", () => page.getByText("app.create").first().waitFor()],
    [`apps/${name(50)}`, heading("Recent deployments")],
    [`apps/${name(50)}?tab=deployments`, () => page.getByText("No deployments yet").waitFor()],
    [`apps/${name(50)}?tab=deliveries`, () => page.getByText(/Auto-deploy is off/).waitFor()],
    [`apps/${name(50)}?tab=settings`, () => page.getByLabel("Releases to keep").waitFor()],
    ["settings/integrations", heading("Source Control")],
    ["settings/notifications", heading("Notifications")],
    ["settings/members", heading("Members")],
    ["settings/api-keys", heading("API keys")],
    ["settings/sessions", heading("Sessions")],
  ] as const)
    seen[path] = await opened(path, shown);
  for (const [path, questions] of Object.entries(seen)) {
    expect(
      questions.filter((q) => /pageToken=./.test(q)),
      path,
    ).toEqual([]);
    expect(questions.length, `${path}: ${questions.join(", ")}`).toBeLessThanOrEqual(12);
  }
  console.log(
    Object.entries(seen)
      .map(([path, questions]) => `  ${path.padEnd(30)} ${questions.length} questions`)
      .join("\n"),
  );
  s.calm();
});

test("an app that is on no first page is found by name wherever apps are chosen", async () => {
  await s.visit("activity");
  await page.getByRole("heading", { name: "Activity" }).waitFor();
  asked = [];
  await page.keyboard.press("Control+k");
  const palette = page.getByRole("dialog", { name: "Jump to" });
  const field = palette.getByRole("searchbox", { name: "Page, app, deployment or workspace" });
  await field.pressSequentially("p-0118");
  await palette.getByRole("option", { name: new RegExp(`^${name(118)} .*main`) }).waitFor();
  await field.fill("0117 4");
  await palette.getByRole("option", { name: `${name(117)} #4` }).waitFor();
  await field.fill("0119 main"); // of several words each, in the id, the repository or the branch
  await expect.poll(() => palette.getByRole("option").allInnerTexts()).toEqual([expect.stringContaining(name(119))]);
  await field.press("Enter");
  await page.waitForURL(new RegExp(`/apps/${name(119)}$`));
  expect(asked.filter((q) => /pageToken=./.test(q))).toEqual([]);

  // A notification target and a key take ids where there are more apps than can be ticked.
  await s.visit("settings/notifications");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByLabel("Name", { exact: true }).fill("Those of one app");
  await page.getByLabel("URL", { exact: true }).fill("https://hooks.example.com/one");
  const only = page.getByLabel("Only these apps", { exact: true });
  await only.fill("not/an/id");
  await s.watch.expecting(/400/, async () => {
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator(".field-error").first().waitFor();
  });
  await check(page, "many-target");
  await only.fill(`${name(118)}, ${name(119)}`);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Copy the secret now").waitFor();
  const { targets } = await s.stack.api<{ targets: { apps: string[] }[] }>(
    "GET",
    "/v1/workspaces/default/notificationTargets",
  );
  expect(targets[0]?.apps).toEqual([name(118), name(119)]);
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("button", { name: "Change Those of one app" }).click();
  await expect.poll(() => only.inputValue()).toBe(`${name(118)} ${name(119)}`);

  await s.visit("settings/api-keys");
  await page.getByRole("button", { name: "Create key" }).click();
  const form = page.getByRole("form", { name: "Create an API key" });
  await form.getByLabel("Name").fill("CI of one app");
  await form.getByLabel("Only these apps").fill(name(117));
  await form.getByRole("button", { name: "Create key" }).click();
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByText(name(117)).waitFor();
  s.calm();
});
