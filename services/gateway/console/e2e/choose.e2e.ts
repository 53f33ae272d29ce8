// A commit or a tag is chosen and deployed, by keyboard; what is live says so until something is pushed.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, narrow, scene, type Scene } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

interface Deployment {
  number: number;
  state: string;
  chosen: boolean;
  tag?: string;
  commit?: { hash: string; message: string };
}
interface App {
  repository: string;
  autoDeploy: boolean;
  live?: { number: number };
  sync: { state: string; reason?: string };
}
const get = <T>(path = "") => s.stack.api<T>("GET", `/v1/workspaces/default/apps/web${path}`);
const live = (number: number) =>
  eventually(`#${number} to be live`, async () => (await get<App>()).live?.number === number);

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", true);
  await s.stack.push("acme/web", "main", "Sell shoes");
  await live(2);
  await s.stack.push("acme/web", "main", "Sell socks");
  await live(3);
  await s.stack.control("POST", "repositories/acme/web/pushes", {
    changes: [{ tag: "v2.0/ready", from: "feature/login", annotation: "Ready" }],
  });
});

afterAll(() => s?.end());

const open = () => page.getByRole("button", { name: "Deploy…" });
const dialog = () => page.getByRole("dialog", { name: "Deploy web" });

test("a commit is chosen from the branch's history, and is live until the next push", async () => {
  const asked: string[] = [];
  page.on("request", (r) => asked.push(new URL(r.url()).pathname));
  await s.visit("apps/web");
  await open().focus();
  await page.keyboard.press("Enter");
  // The latest commit is what is offered at first, and nothing is asked of Bitbucket for it.
  await dialog().getByRole("radio", { name: "The latest commit of main" }).waitFor();
  expect(await dialog().getByRole("radio", { name: "The latest commit of main" }).isChecked()).toBe(true);
  await dialog().getByRole("button", { name: "Deploy main" }).waitFor();
  expect(asked.filter((p) => /\/(commits|tags)$/.test(p))).toEqual([]);
  await check(page, "deploy-choice");
  await dialog().getByRole("radio", { name: "The latest commit of main" }).focus();
  await page.keyboard.press("ArrowDown");
  const field = dialog().getByRole("combobox", { name: "Commit" });
  await dialog().getByText("The next push to main deploys and takes the place of what you choose.").waitFor();
  await field.click();
  const options = dialog().getByRole("option");
  await expect
    .poll(async () => (await options.allTextContents()).slice(0, 2))
    .toEqual([expect.stringContaining("Sell socks"), expect.stringContaining("Sell shoes")]);
  await check(page, "deploy-choice-commits");
  await narrow(page, "deploy-choice-commits");
  await field.fill("shoes");
  await expect.poll(() => options.allTextContents()).toEqual([expect.stringContaining("Sell shoes")]);
  await field.press("Enter");
  await expect.poll(() => field.inputValue()).toMatch(/^[0-9a-f]{7} Sell shoes$/);
  await dialog()
    .getByRole("button", { name: /^Deploy [0-9a-f]{7}$/ })
    .press("Enter");
  await page.waitForURL("**/apps/web/deployments/4");
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  await page.getByText("Chosen commit by").first().waitFor();
  const d = await get<Deployment>("/deployments/4");
  expect([d.chosen, d.commit?.message]).toEqual([true, "Sell shoes"]);
  expect((await get<App>()).sync).toMatchObject({ state: "CHOSEN", reason: "COMMIT_CHOSEN" });
  await s.visit("apps");
  await page.getByText("Chosen", { exact: true }).first().waitFor();
  await s.stack.push("acme/web", "main", "Sell hats");
  await live(5);
  s.calm();
});

test("an older commit is found by its hash; one of another branch is refused in words, and can be corrected", async () => {
  const { repository } = await get<App>();
  const login = await s.stack.api<{ branches: { name: string; commit: { hash: string } }[] }>(
    "GET",
    `/v1/workspaces/default/repositories/${repository}/branches?query=feature/login`,
  );
  const hash = login.branches[0]?.commit.hash ?? "";
  await s.visit("apps/web");
  await open().click();
  await dialog().getByRole("radio", { name: "Another commit of main" }).check();
  const field = dialog().getByRole("combobox", { name: "Commit" });
  await field.fill(hash.slice(0, 9));
  await expect.poll(() => dialog().getByRole("option").count()).toBe(1);
  await field.press("Enter");
  await s.watch.expecting(/409/, async () => {
    await dialog()
      .getByRole("button", { name: `Deploy ${hash.slice(0, 7)}` })
      .click();
    await dialog().getByText("is not in the history of main").waitFor();
  });
  await dialog().getByText("Choose a commit that the branch has, or a tag that points to it.").waitFor();
  await check(page, "deploy-choice-refused");

  await dialog().getByRole("radio", { name: "A tag" }).check();
  const tags = dialog().getByRole("combobox", { name: "Tag" });
  await tags.fill("ready");
  await expect
    .poll(() => dialog().getByRole("option").allTextContents())
    .toEqual([expect.stringMatching(new RegExp(`^v2.0/ready ${hash.slice(0, 7)}`))]);
  await tags.press("Enter");
  await expect.poll(() => tags.inputValue()).toBe("v2.0/ready");
  await dialog().getByRole("checkbox", { name: "Switch auto-deploy off" }).check();
  await dialog().getByRole("button", { name: "Deploy v2.0/ready" }).click();
  await page.waitForURL("**/apps/web/deployments/6");
  await page.getByText("End of the log: completed.").waitFor({ timeout: 60_000 });
  await page.getByText("Chosen tag by").first().waitFor();
  expect(await get<Deployment>("/deployments/6")).toMatchObject({ tag: "v2.0/ready", commit: { hash }, chosen: true });
  expect(await get<App>()).toMatchObject({ autoDeploy: false, sync: { state: "CHOSEN", reason: "TAG_CHOSEN" } });
  s.calm();
});
