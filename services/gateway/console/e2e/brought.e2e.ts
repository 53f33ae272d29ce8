// What an event brings along is shown without asking for it: a push that goes live, watched on the page of its app and
// on that of its deployment, in the tab that reads the stream and in one that is told by it.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { connect, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;

beforeAll(async () => {
  s = await scene("sample");
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  await eventually("the first deployment", async () => (await app()).live?.number === 1);
});

afterAll(() => s?.end());

interface App {
  live?: { number: number };
  latest?: { number: number; state: string };
  sync: { state: string };
}
const app = () => s.stack.api<App>("GET", "/v1/workspaces/default/apps/web");
const deployment = (n: number) =>
  s.stack.api<{ state: string; live: boolean }>("GET", `/v1/workspaces/default/apps/web/deployments/${n}`);

/** What a page asks of the API, streams left out, while something happens. */
function asked(page: Page): string[] {
  const list: string[] = [];
  page.on("request", (r) => {
    const { pathname, search } = new URL(r.url());
    if (pathname.startsWith("/v1/") && !/\/(events|log)$/.test(pathname))
      list.push(r.method() + " " + pathname + search);
  });
  return list;
}

/** What an event brought is not asked for: so many questions are the most. Without it there were 18 and 9. */
const most = { app: 10, deployment: 4 };

/** Pushes, and waits until the commit is live and nothing changes any more. */
async function live(message: string): Promise<number> {
  const before = (await app()).latest?.number ?? 0;
  await s.stack.push("acme/web", "main", message);
  await eventually("the push to be live", async () => {
    const a = await app();
    return a.live?.number === before + 1 && a.sync.state === "IN_SYNC";
  });
  return before + 1;
}

test("a push that goes live is shown on the app's page with few questions, in both tabs", async () => {
  const { page } = s;
  await s.visit("apps/web");
  await page.getByText(/The longest took/).waitFor();
  const other = await s.context.newPage(); // it is told by the first one
  await other.goto(s.at("apps/web"));
  await other.getByText(/The longest took/).waitFor();
  await other.waitForLoadState("networkidle");
  const pages = [page, other].map((p) => ({ p, list: asked(p) }));
  const n = await live("Shown by its events");
  const { deployments } = await s.stack.api<{ deployments: { number: number; state: string; live: boolean }[] }>(
    "GET",
    "/v1/workspaces/default/apps/web/deployments",
  );
  expect(deployments.map((d) => [d.number, d.state, d.live])).toEqual([
    [n, "COMPLETED", true],
    [1, "COMPLETED", false],
  ]);
  for (const { p } of pages) {
    await p.locator(".headline").getByText(`#${n}`).waitFor();
    await p.getByText(/In sync/).waitFor();
    const row = (number: number) => p.getByRole("row").filter({ hasText: new RegExp(`^#${number}Completed`) });
    await row(n).getByText("live", { exact: true }).waitFor();
    await row(1).waitFor();
    expect(await row(1).getByText("live", { exact: true }).count()).toBe(0);
    expect(await p.locator(".headline").getByText(`#${n}`).count()).toBe(1);
  }
  // The last that is told of a push: its delivery.
  for (const { list } of pages)
    await eventually("the deliveries to be asked for", async () => list.some((q) => q.includes("/deliveries")));
  const counts = pages.map(({ list }) => list.length);
  console.log(`one push to live: the page of the app asked ${counts[0]} times, that which is told ${counts[1]} times`);
  for (const { list } of pages) {
    expect(list.length, list.join("\n")).toBeLessThanOrEqual(most.app);
    expect(list.filter((q) => q.endsWith("/apps/web")).length, list.join("\n")).toBeLessThanOrEqual(2);
  }
  await other.close();
  s.calm();
});

test("the page of a deployment follows it to its end, and never goes back", async () => {
  const { page } = s;
  const command = "for i in $(seq 6); do echo part $i; sleep 0.5; done";
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    hooks: [{ name: "slow", stage: "POST_SOURCE_CONTROL", command }],
  });
  await s.visit("apps/web");
  const n = ((await app()).latest?.number ?? 0) + 1;
  await s.stack.push("acme/web", "main", "Followed");
  await page
    .getByRole("link", { name: `#${n}` })
    .first()
    .click();
  await page.waitForURL(new RegExp(`/deployments/${n}$`));
  await page.locator(".subline").getByText("Deploying").waitFor();
  const list = asked(page);
  const said = await page.evaluateHandle(() => {
    const said: string[] = [];
    const look = () => {
      const text = document.querySelector(".subline")?.textContent ?? "";
      if (text !== said.at(-1)) said.push(text);
    };
    look();
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
    return said;
  });
  await page.locator(".subline").getByText("Completed").waitFor();
  await page.locator(".subline").getByText("live", { exact: true }).waitFor();
  const last = await deployment(n);
  expect([last.state, last.live]).toEqual(["COMPLETED", true]);
  const steps = await said.jsonValue();
  const progress = steps.map((t) => (t.includes("Completed") ? 100 : Number(/(\d+) %/.exec(t)?.[1] ?? -1)));
  expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  console.log(`from its start to live: the page of the deployment asked ${list.length} times: ${steps.join(", ")}`);
  expect(list.length, list.join("\n")).toBeLessThanOrEqual(most.deployment);
  s.calm();
});
