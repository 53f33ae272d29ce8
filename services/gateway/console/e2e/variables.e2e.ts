// A `.env` is pasted into an app's variables: what it would do is shown first, and then all of it is saved.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, connect, narrow, scene, type Scene } from "./browser";
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
