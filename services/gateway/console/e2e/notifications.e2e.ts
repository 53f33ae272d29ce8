// Where a workspace hears of what happens: added, tested against a small server, changed, deleted.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Page } from "playwright-core";
import { check, narrow, scene, type Scene } from "./browser";

let s: Scene;
let page: Page;
let receiver: Server;
let url: string;

beforeAll(async () => {
  receiver = createServer((_, answer) => answer.writeHead(204).end()).listen(0, "127.0.0.1");
  await new Promise((done) => receiver.once("listening", done));
  url = `https://localhost:${(receiver.address() as AddressInfo).port}/hook`;
  s = await scene("sample");
  ({ page } = s);
});

afterAll(async () => {
  await s?.end();
  receiver.close();
});

test("a target is added, its secret shown once, a test told truly, and it is changed and deleted", async () => {
  await s.visit("settings/notifications");
  await page.getByText("No notifications yet.").waitFor();
  await check(page, "notifications-empty");
  await page.getByRole("button", { name: "Add" }).click();
  await check(page, "notifications-new");
  await narrow(page, "notifications-new");
  await s.watch.expecting(/status of 400/, async () => {
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("say who or what gets the notifications").waitFor();
  });
  await page.getByText("say where to send them").waitFor();
  expect(await page.getByRole("radio", { name: /E-mail/ }).isDisabled()).toBe(true);
  await page.getByLabel("Name", { exact: true }).fill("Operations");
  await page.getByLabel("URL", { exact: true }).fill(url);
  await page.getByLabel("From", { exact: true }).fill("22:00");
  await page.getByLabel("To", { exact: true }).fill("07:00");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Copy the secret now").waitFor();
  expect(await page.getByText(/^dpn_/).count()).toBe(1);
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("heading", { name: "Operations" }).waitFor();
  expect(await page.getByText(/^dpn_/).count()).toBe(0);
  expect(await page.getByText("/hook").count()).toBe(0);

  await page.getByRole("button", { name: "Send a test to Operations" }).click();
  await page.getByText("The test did not arrive.").waitFor(); // a receiver on this machine is not allowed
  await page.getByRole("button", { name: "Log of Operations" }).click();
  await page.getByRole("list", { name: "What was sent to Operations" }).getByText("private or reserved").waitFor();
  await check(page, "notifications");
  await narrow(page, "notifications");

  await page.getByRole("button", { name: "Change Operations" }).click();
  await page.getByRole("checkbox", { name: "A server has too little disk" }).check();
  // Somebody else changes it while it is being saved; then the page says so, and another Save is meant.
  const targets = "/v1/workspaces/default/notificationTargets";
  const { targets: all } = await s.stack.api<{ targets: { id: string }[] }>("GET", targets);
  const path = `${targets}/${all[0]?.id}`;
  await page.route(
    (there) => there.pathname === path,
    async (route) => {
      await s.stack.api("PATCH", path, { label: "Operations at night" });
      await route.continue();
    },
    { times: 1 },
  );
  await s.watch.expecting(/409|412/, async () => {
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Nothing was saved.").waitFor();
  });
  await page.getByText("Somebody changed this meanwhile.").waitFor();
  await page.getByRole("button", { name: "Show what is there" }).click();
  expect(await page.getByLabel("Name", { exact: true }).inputValue()).toBe("Operations at night");
  await page.getByLabel("Name", { exact: true }).fill("Operations");
  await page.getByRole("checkbox", { name: "A server has too little disk" }).check();
  await page.getByRole("checkbox", { name: "Send" }).uncheck();
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Off", { exact: true }).waitFor();
  await page.getByText(/A server has too little disk/).waitFor();

  await page.getByRole("button", { name: "Delete Operations" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Delete" }).click();
  await page.getByText("No notifications yet.").waitFor();
  s.calm();
});
