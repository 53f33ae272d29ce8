// What an app's settings hold beside hooks and rules: variables, pasted or for some branches only, and the badge.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, focused, narrow, scene, type Scene } from "./browser";
import { createApp } from "./stack";

let s: Scene;
let page: Page;

beforeAll(async () => {
  s = await scene("sample");
  ({ page } = s);
  await connect(s.stack, s.context);
  await createApp(s.stack, "web", "acme/web", false);
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    variables: [
      { name: "MODE", secret: false, value: "test" },
      { name: "TOKEN", secret: true, value: "stored-4711" },
      { name: "KEY", secret: true, value: "stored-4712" },
    ],
  });
});

afterAll(() => s?.end());

const variables = async () =>
  (
    await s.stack.api<{ variables: { name: string; secret: boolean; value?: string }[] }>(
      "GET",
      "/v1/workspaces/default/apps/web",
    )
  ).variables.map((v) => [v.name, v.secret, v.value ?? ""]);

test("a pasted .env is shown with what it would do, mended, and saved as secrets", async () => {
  await s.visit("apps/web?tab=settings&section=hooks");
  await page.getByRole("button", { name: "Paste a .env…" }).click();
  const dialog = page.getByRole("dialog", { name: "Paste a .env" });
  const text = dialog.getByLabel("Lines such as NAME=value");
  const row = (name: string) =>
    dialog.getByRole("list", { name: "What was read" }).getByRole("listitem").filter({ hasText: name });
  const good = [
    "# from the old server",
    "LEVEL=info",
    "MODE=production # was test",
    "export TOKEN='pasted-4713'",
    "KEY=",
    'PEM="pasted-4714',
    'second line"',
    "LEVEL=debug",
  ].join("\r\n");
  await text.fill(`${good}\r\nno equals sign\r\nDEVPILOT_X=1`);
  await row("Line 9").getByText("Has no “=”").waitFor();
  await row("DEVPILOT_X").getByText("Line 10: Names that begin with DEVPILOT_").waitFor();
  await dialog.getByRole("button", { name: "Save the variables" }).click();
  await dialog.getByText("Mend or remove the lines").waitFor();
  await check(page, "settings-paste");
  await narrow(page, "settings-paste");
  expect((await variables()).length).toBe(3);

  await text.fill(good);
  await dialog.getByText("2 new, 2 replace others").waitFor();
  await row("LEVEL").getByText("Also on line 2: the last one, on line 8, counts.").waitFor();
  await row("KEY").getByText("the stored one stays").waitFor();
  await row("MODE").getByText("replaces", { exact: true }).waitFor();
  await row("PEM").getByText("new", { exact: true }).waitFor();
  for (const name of ["LEVEL", "MODE", "TOKEN", "PEM"])
    expect(await dialog.getByRole("checkbox", { name: `Secret ${name}` }).isChecked(), name).toBe(true);
  expect(await dialog.getByRole("checkbox", { name: "Secret TOKEN" }).isDisabled()).toBe(true);
  await dialog.getByRole("checkbox", { name: "Secret MODE" }).uncheck();
  await dialog.getByRole("button", { name: "Save the variables" }).click();
  await dialog.waitFor({ state: "detached" });

  await page.getByRole("button", { name: "Replace PEM" }).waitFor();
  await page.getByText("production").waitFor();
  expect(await page.content()).not.toMatch(/pasted-|stored-/);
  expect(await variables()).toEqual([
    ["MODE", false, "production"],
    ["TOKEN", true, ""],
    ["KEY", true, ""],
    ["PEM", true, ""],
    ["LEVEL", true, ""],
  ]);
  await page.getByRole("button", { name: "Paste a .env…" }).click();
  expect(await text.inputValue()).toBe("");
  await page.keyboard.press("Escape");
  s.calm();
});

test("a variable has a value of its own for some branches, by keyboard alone", async () => {
  await s.stack.api("PATCH", "/v1/workspaces/default/apps/web", {
    branch: "release/*",
    variables: [{ name: "MODE", secret: false, value: "test" }],
  });
  await s.visit("apps/web?tab=settings&section=hooks");
  await page.getByText("one may have a value of its own for some branches").waitFor();
  const open = page.getByRole("button", { name: "Add a variable…" });
  await open.focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "Add a variable" });
  await dialog.getByLabel("Name").waitFor();
  const type = async (text: string) => {
    await page.keyboard.type(text);
    await page.keyboard.press("Tab");
  };
  await focused(dialog.getByLabel("Name")); // it begins here
  await type("MODE");
  await type("");
  await type("live");
  await page.keyboard.press("Enter"); // a line of a form saves it
  await dialog.getByText("Another variable has this name.").waitFor();
  await dialog.getByLabel("Only on branches").focus();
  await type("release/2.*");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  await focused(open);
  const list = page.getByRole("list", { name: "Variables" });
  await list.getByRole("listitem").filter({ hasText: "release/2.*" }).getByText("live").waitFor();
  await page.getByRole("button", { name: "Edit MODE of release/2.*", exact: true }).waitFor();
  await page.getByRole("button", { name: "Edit MODE", exact: true }).waitFor();
  await check(page, "settings-branches");
  await narrow(page, "settings-branches");
  s.calm();
});

test("the badge has a link of its own, and none once it is switched off", async () => {
  await s.visit("apps/web?tab=settings");
  const card = page.getByRole("region", { name: "Status badge" });
  const badge = card.getByRole("img");
  const turn = () => card.getByText("Show a badge to whoever").click();
  await turn();
  await badge.waitFor();
  await expect.poll(() => badge.evaluate((i) => (i as HTMLImageElement).naturalWidth)).toBeGreaterThan(100);
  await check(page, "settings-badge");
  await narrow(page, "settings-badge");
  const link = (await badge.getAttribute("src")) ?? "";
  expect(await card.getByText(`![deployment](${link})`).count()).toBe(1);
  const seen = await fetch(link); // without any cookie
  expect([seen.status, seen.headers.get("content-type")]).toEqual([200, "image/svg+xml"]);
  expect(await seen.text()).not.toMatch(/web|acme|default/);
  await turn();
  await badge.waitFor({ state: "detached" });
  expect((await fetch(link)).status).toBe(404);
  await turn();
  await badge.waitFor();
  expect(await badge.getAttribute("src")).not.toBe(link);
  expect((await fetch(link)).status).toBe(404);
  s.calm();
});
