// A thousand apps on two hundred repositories: what needs somebody is on top, anything is found, a page asks for what it
// shows, and what there is of a kind is counted to its end.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, focusIn, narrow, scene, type Scene } from "./browser";
import { startRedis, type Redis } from "./redis";
import { eventually } from "./stack";

const apps = 1000;
// More than a page of any list holds.
const repositories = 205;

let redis: Redis;
let s: Scene;
let page: Page;
/** What was asked of the API since it was emptied: path and query below the workspace. */
let asked: string[] = [];
let sources: { id: string; fullName: string }[];

const name = (n: number) => `app-${String(n).padStart(4, "0")}`;
const source = (n: number) => sources[n % repositories];
const rows = () => page.getByRole("list", { name: "Apps" }).getByRole("listitem");
const lists = () => asked.filter((q) => q.startsWith("apps?"));
const further = () => asked.filter((q) => /pageToken=./.test(q));

/** What a list of the API holds, up to so many. */
async function listed<T>(list: string, most: number): Promise<T[]> {
  const all: T[] = [];
  for (let pageToken = ""; ;) {
    const got = await s.stack.api<Record<string, T[]> & { nextPageToken?: string }>(
      "GET",
      `/v1/workspaces/default/${list}?pageSize=200&pageToken=${encodeURIComponent(pageToken)}`,
    );
    all.push(...(got[list] ?? []));
    pageToken = got.nextPageToken ?? "";
    if (pageToken === "" || all.length >= most) return all.slice(0, most);
  }
}

beforeAll(async () => {
  redis = await startRedis();
  s = await scene("ten-thousand", true, { DEVPILOT_REDIS_URL: redis.url });
  ({ page } = s);
  page.on("request", (r) => {
    const url = new URL(r.url());
    if (url.pathname.startsWith("/v1/")) asked.push(url.pathname.replace("/v1/workspaces/default/", "") + url.search);
  });
  await connect(s.stack, s.context);
  sources = await listed("repositories", repositories);
  let next = 1;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (next <= apps) {
        const n = next++;
        if (n % 50 === 0) await redis.forget(); // more are made than the calls of an hour allow
        await s.stack.api("POST", "/v1/workspaces/default/apps", {
          appId: name(n),
          app: { repository: source(n)?.id, branch: "main", autoDeploy: true },
        });
      }
    }),
  );
  await eventually("the webhooks to be registered", async () => {
    const webhooks = await listed<{ state: string }>("webhooks", apps);
    return webhooks.length === repositories && webhooks.every((w) => w.state === "ACTIVE");
  });
}, 240_000);

afterAll(async () => {
  await s?.end();
  await redis?.stop();
});

test("the list shows its first page and says how many there are", async () => {
  asked = [];
  await page.goto(s.at("apps"));
  await rows().nth(49).waitFor();
  expect(await rows().count()).toBe(50);
  expect([...new Set(lists())]).toEqual(["apps?pageSize=50&orderBy=need"]);
  const needs = page.getByRole("navigation", { name: "Apps by how they stand" });
  await needs.getByRole("link", { name: `All ${apps}` }).waitFor();
  await needs.getByRole("link", { name: `Behind ${apps}` }).waitFor();
  // A branch's few letters are not cut off for the sake of a repository's many.
  const branch = rows().first().locator(".from > .clip").last();
  expect(await branch.evaluate((e) => e.scrollWidth - e.clientWidth)).toBe(0);
  await check(page, "thousand-apps");
  await narrow(page, "thousand-apps");
  s.calm();
});

test("one push to five apps of a thousand is shown where one looks, with few questions", async () => {
  asked = [];
  await s.stack.push(source(7)?.fullName ?? "", "main", "One push, five apps");
  const live = page.getByRole("link", { name: "In sync 5" });
  await live.waitFor();
  console.log(`a push to five apps: the list asked ${lists().length} times`);
  expect(further()).toEqual([]);
  await live.click();
  await expect.poll(() => rows().count()).toBe(5);
  await rows().getByText(name(7)).waitFor();
  s.calm();
});

test("what fails is on top of all, at once", async () => {
  await s.visit("apps");
  await rows().nth(49).waitFor();
  await s.stack.api("PATCH", `/v1/workspaces/default/apps/${name(990)}`, {
    hooks: [{ name: "build", stage: "POST_SOURCE_CONTROL", command: "exit 3" }],
  });
  await s.stack.api("POST", `/v1/workspaces/default/apps/${name(990)}/deployments`, {});
  await rows().first().getByText(name(990)).waitFor();
  await rows().first().getByText("Hook build, exit 3").waitFor();
  await page.getByRole("link", { name: "Failing 1" }).waitFor();
  s.calm();
});

test("any of them is a few keys away", async () => {
  asked = [];
  for (const n of [987, 654, 321]) {
    await page.keyboard.press("Control+k");
    await focusIn(page.getByRole("dialog", { name: "Jump to" }));
    await page.keyboard.type(name(n).slice(-4));
    await page.keyboard.press("Enter"); // before the list has come, or after: it is the one that is meant
    await page.waitForURL(new RegExp(`/apps/${name(n)}$`));
    await page.getByRole("heading", { name: name(n) }).waitFor();
    await page.getByRole("dialog").waitFor({ state: "detached" });
  }
  await page.getByRole("heading", { name: "Recent deployments" }).waitFor();
  expect(further()).toEqual([]);
  s.calm();
});

test("all webhooks are reached and counted, and what a removal leaves behind is listed to the last one", async () => {
  await s.visit("settings/integrations");
  const webhooks = page.getByRole("region", { name: "Webhooks" }).getByRole("listitem");
  await webhooks.nth(49).waitFor();
  expect(await webhooks.count()).toBe(50);
  await page.getByRole("button", { name: "Load more" }).click();
  await expect.poll(() => webhooks.count()).toBe(100);

  await page.getByRole("button", { name: "Remove…" }).click();
  const dialog = page.getByRole("alertdialog");
  await dialog.getByText(`${repositories} webhooks stay on Bitbucket`).waitFor();
  await dialog.getByText(`and ${repositories - 20} more`).waitFor();
  await check(page, "thousand-remove");
  await narrow(page, "thousand-remove");
  await dialog.getByRole("button", { name: "Remove Bitbucket" }).click();
  await dialog.waitFor({ state: "detached" });
  const left = page.getByRole("region", { name: "Left on Bitbucket" }).getByRole("listitem");
  await expect.poll(() => left.count()).toBe(repositories);
  await left
    .first()
    .getByRole("button", { name: /^Deleted/ })
    .click();
  await expect.poll(() => left.count()).toBe(repositories - 1);
  s.calm();
});
