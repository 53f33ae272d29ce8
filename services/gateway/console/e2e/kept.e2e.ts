// What somebody typed is kept: the session ends in the middle of a form, the network is cut, Devpilot is started
// anew, another tab changes the same thing. And what cannot be had says so and can be had later.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, focused, focusIn, open, scene, type Scene, signIn } from "./browser";
import { createApp, eventually } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", false);
});

afterAll(() => s?.end());

interface App {
  branch: string;
  autoDeploy: boolean;
  retention: number;
}
const app = (id = "web") => s.stack.api<App>("GET", `/v1/workspaces/default/apps/${id}`);
const signOut = async () => {
  await s.context.request.delete(`${s.stack.url}/v1/session`);
};
const signedOut = () => page.getByRole("alert").filter({ hasText: "You are signed out." });

test("a page that is not loaded yet says so without a network, and comes when there is one", async () => {
  await s.visit("apps/web");
  await page.getByRole("heading", { name: "Recent deployments" }).waitFor();
  await s.watch.expecting(/./, async () => {
    s.stack.cut(true);
    await page.getByRole("link", { name: "Members" }).click();
    const failure = page.getByRole("alert").filter({ hasText: "This part of the page did not come." });
    await failure.waitFor();
    // The way elsewhere is still there, and what is loaded already works.
    await page.getByRole("link", { name: "Apps", exact: true }).first().click();
    await failure.waitFor({ state: "detached" });
    await page.getByRole("link", { name: "Members" }).click();
    await failure.waitFor();
    s.stack.mend();
    await failure.getByRole("button", { name: "Load it again" }).click();
    await page.getByRole("list", { name: "Members" }).waitFor();
  });
});

test("a session that ends in the middle of a form leaves it as it is, and it is saved after signing in again", async () => {
  await s.visit("apps/new");
  await page.getByRole("combobox", { name: "Repository" }).fill("acme/api");
  await page.getByRole("listbox").getByRole("option").first().click();
  await page.getByLabel("App id").fill("kept-through-it");
  await s.watch.expecting(/401/, async () => {
    await signOut();
    await signedOut().waitFor();
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.getByText("The app was not saved. You are not signed in. Sign in again.").waitFor();
    await check(page, "signed-out-with-a-form");
    expect(await page.getByLabel("App id").inputValue()).toBe("kept-through-it");
    const link = signedOut().getByRole("link", { name: "Sign in" });
    expect(await link.getAttribute("target")).toBe("_blank");
    await signIn(s.stack, s.context);
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.waitForURL(/\/apps\/kept-through-it$/);
    await signedOut().waitFor({ state: "detached" });
  });
  s.calm();
});

test("without a form in the way a session that ended leads to signing in and back", async () => {
  await s.visit("apps/web?tab=deliveries");
  await s.watch.expecting(/401/, async () => {
    await signOut();
    await page.waitForURL(/\/sign-in\?next=/);
  });
  expect(new URL(page.url()).searchParams.get("next")).toBe("/w/default/apps/web?tab=deliveries");
  await signIn(s.stack, s.context);
});

test("Devpilot is away behind a proxy, and the form that is being filled stays", async () => {
  await s.visit("apps/web?tab=settings");
  await page.getByLabel("Releases to keep").fill("7");
  await s.watch.expecting(/502|ERR_/, async () => {
    await page.route("**/v1/**", (route) => route.fulfill({ status: 502, contentType: "text/html", body: "<h1>Bad" }));
    s.stack.cut();
    await page.getByText("Live updates are interrupted").waitFor();
    // Whoever one is is asked when the stream is refused; that is answered by nobody either.
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.getByText("Nothing was changed.").waitFor();
    expect(await page.getByLabel("Releases to keep").inputValue()).toBe("7");
    await page.unroute("**/v1/**");
    await page.getByText("Live updates are interrupted").waitFor({ state: "detached" });
  });
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await eventually("it to be saved", async () => (await app()).retention === 7);
  s.calm();
});

test("two tabs change different things of one app, and both stay", async () => {
  await s.visit("apps/web?tab=settings");
  await page.getByLabel("Releases to keep").fill("9");
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { autoDeploy: false });
  await expect.poll(() => page.getByRole("switch", { name: "Deploy on every push" }).isChecked()).toBe(false);
  expect(await page.getByLabel("Releases to keep").inputValue()).toBe("9");
  expect(await page.getByText("Somebody changed this meanwhile.").count()).toBe(0);
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await eventually("it to be saved", async () => (await app()).retention === 9);
  expect((await app()).autoDeploy).toBe(false);
  // The same thing: who saves is told.
  await page.getByLabel("Releases to keep").fill("3");
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", { retention: 4 });
  await page.getByText("Somebody changed this meanwhile.").waitFor();
  await page.getByRole("button", { name: "Show what is there" }).click();
  expect(await page.getByLabel("Releases to keep").inputValue()).toBe("4");
  s.calm();
});

test("a dialog in which something was typed is not closed by a click beside it or a key", async () => {
  await s.visit("apps/web?tab=settings&section=hooks");
  await page.getByRole("button", { name: "Add a hook…" }).click();
  const dialog = page.getByRole("dialog", { name: "Add a deployment hook" });
  await dialog.getByLabel("Command").fill("npm ci && npm run a-very-long-build");
  const asked = page.getByRole("alertdialog", { name: "Leave without saving?" });
  await page.mouse.click(4, 4);
  await asked.getByRole("button", { name: "Stay" }).click();
  await focused(dialog.getByLabel("Command"));
  await page.keyboard.press("Escape");
  await asked.getByRole("button", { name: "Stay" }).click();
  await focused(dialog.getByLabel("Command"));
  expect(await dialog.getByLabel("Command").inputValue()).toBe("npm ci && npm run a-very-long-build");
  await page.keyboard.press("Escape");
  await asked.getByRole("button", { name: "Leave" }).click();
  await dialog.waitFor({ state: "detached" });
  // Nothing typed: nothing asked.
  await page.getByRole("button", { name: "Add a hook…" }).click();
  await focusIn(dialog);
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  s.calm();
});

test("a notification and an invitation that are half written are not left unasked", async () => {
  const asked = page.getByRole("alertdialog", { name: "Leave without saving?" });
  for (const [path, button, field] of [
    ["settings/notifications", "Add", "Name"],
    ["settings/members", "Invite", "E-mail address"],
  ] as const) {
    await s.visit(path);
    await page.getByRole("button", { name: button, exact: true }).click();
    await page.getByLabel(field).fill("somebody");
    await page.getByRole("link", { name: "Activity" }).click();
    await asked.getByRole("button", { name: "Stay" }).click();
    expect(await page.getByLabel(field).inputValue()).toBe("somebody");
    await page.getByRole("link", { name: "Activity" }).click();
    await asked.getByRole("button", { name: "Leave" }).click();
    await page.waitForURL(/\/activity$/);
  }
  s.calm();
});

test("an address that names no deployment says so", async () => {
  for (const number of ["abc", "1.5", "0", "-1", "99999999999", "1e3"]) {
    await page.goto(s.at(`apps/web/deployments/${number}`));
    await page.getByRole("heading", { name: "There is no such page" }).waitFor();
  }
  s.calm();
});

test("names as long as they may be fit a phone, and apps are told apart", async () => {
  const long = `a${"b".repeat(61)}z`;
  await s.stack.push("acme/web", `feature/${"long-".repeat(38)}`, "x".repeat(3_000), "main");
  await createApp(s.stack, long, "acme/web", true, `feature/${"long-".repeat(38)}`);
  const phone = await open(s.browser, { viewport: { width: 360, height: 740 } });
  await signIn(s.stack, phone);
  const narrow = await phone.newPage();
  for (const path of ["apps", `apps/${long}`, `apps/${long}?tab=settings`, `apps/${long}/deployments/1`]) {
    await narrow.goto(s.at(path));
    await narrow
      .locator(path === "apps" ? ".app-row" : ".subline")
      .first()
      .waitFor();
    await check(narrow, `long-names-${path.length}`);
    // A message of one long line does not push all else out of sight.
    if (path !== "apps")
      expect(await narrow.evaluate(() => document.querySelector("main strong")?.clientHeight ?? 0)).toBeLessThan(200);
  }
  await narrow.goto(s.at("apps"));
  const name = narrow.getByRole("link", { name: "kept-through-it" });
  expect(await name.evaluate((e) => e.scrollWidth - e.clientWidth), "a name of 15 letters is cut").toBeLessThanOrEqual(
    0,
  );
  await phone.close();
});
