// The workspaces of two people in two browsers: what one makes, renames and deletes, the other sees.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Browser, Page } from "playwright-core";
import { check, focused, launch, open, signIn, visit, Watch } from "./browser";
import { provide, type Provider } from "./provider";
import { start, type Stack } from "./stack";

let stack: Stack;
let browser: Browser;
let provider: Provider;
let olga: Page;
let jane: Page;
let watch: Watch;

beforeAll(async () => {
  const program = process.env["DEVPILOT_PROGRAM"];
  if (program === undefined) throw new Error("DEVPILOT_PROGRAM must name the built all-in-one");
  provider = await provide({
    olga: { name: "Olga Owner", email: "olga@example.com", role: "owner" },
    jane: { name: "Jane Developer", email: "jane@example.com", role: "member" },
  });
  [stack, browser] = await Promise.all([start(program, "sample", provider.args), launch()]);
  olga = await provider.person(browser, "olga", `${stack.url}/sign-in`);
  jane = await provider.person(browser, "jane", `${stack.url}/sign-in`);
  watch = new Watch(olga.context());
});

afterAll(async () => {
  await browser?.close();
  await stack?.stop();
  await provider?.stop();
});

const row = (page: Page, name: string) =>
  page.getByRole("list", { name: "Workspaces", exact: true }).getByRole("listitem").filter({ hasText: name });
const switcher = (page: Page) => page.getByLabel("Workspace", { exact: true });
const chosen = (page: Page) => switcher(page).locator("option:checked");

/** At a desk and on a telephone, in both schemes. */
async function everywhere(page: Page, name: string): Promise<void> {
  await check(page, name, true);
  await page.setViewportSize({ width: 390, height: 844 });
  await check(page, `${name}-390`, true);
  await page.setViewportSize({ width: 1280, height: 860 });
}

test("who may not rename and delete reads whom to ask, where the buttons are", async () => {
  await visit(jane, `${stack.url}/w/default/settings/workspaces`);
  const own = row(jane, "default");
  await own.getByText("You are a member of").first().waitFor();
  for (const name of ["Rename", "Delete"])
    expect(await own.getByRole("button", { name }).getAttribute("aria-disabled"), name).toBe("true");
  await own.getByRole("button", { name: "Delete" }).focus();
  await jane.keyboard.press("Enter");
  expect(await jane.getByRole("alertdialog").count()).toBe(0);
  await everywhere(jane, "workspaces-of-a-member");
});

test("a workspace is made with the keyboard alone, with an id made of its name, and opens", async () => {
  await visit(olga, `${stack.url}/w/default/settings/workspaces`);
  await olga.getByRole("button", { name: "Create workspace" }).focus();
  await olga.keyboard.press("Enter");
  await focused(olga.getByLabel("Name", { exact: true }));
  await olga.keyboard.type("Acme Läden");
  const id = olga.getByLabel("Id", { exact: true });
  expect(await id.inputValue()).toBe("acme-la-den");
  await olga.keyboard.press("Tab");
  await olga.keyboard.type("Not An Id"); // in place of all that was there
  await olga.keyboard.press("Enter");
  await olga.getByText("Lower-case letters, digits and hyphens; not a hyphen first; 63 at most.").waitFor();
  await everywhere(olga, "workspaces-create");
  await id.fill("default");
  await olga.keyboard.press("Enter");
  await watch.expecting(/409/, () => olga.getByText(/workspace "default" exists already/).waitFor());
  await id.fill("acme-shops");
  await olga.keyboard.press("Enter");
  await olga.waitForURL(/\/w\/acme-shops\/apps$/);
  await olga.getByRole("heading", { name: "Connect Bitbucket, then deploy" }).waitFor();
  expect(await chosen(olga).innerText()).toBe("Acme Läden");
});

test("a new name is in the switcher at once, and in the browser of another without loading anew", async () => {
  const invited = await olga.context().request.post(`${stack.url}/v1/workspaces/acme-shops/invitations`, {
    data: { email: "jane@example.com", role: "ADMIN" },
  });
  const { url } = (await invited.json()) as { url: string };
  await jane.context().close();
  jane = await provider.person(browser, "jane", url);
  await jane.goto(`${stack.url}/w/acme-shops/settings/workspaces`);
  await row(jane, "Acme Läden").getByText("You are an admin of Acme Läden.").first().waitFor();

  await visit(olga, `${stack.url}/w/acme-shops/settings/workspaces`);
  await row(olga, "Acme Läden").getByRole("button", { name: "Rename" }).click();
  const name = olga.getByRole("dialog").getByLabel("Name");
  await name.fill("Acme\u0007");
  await name.fill("Acme Stores");
  await everywhere(olga, "workspaces-rename");
  await olga.keyboard.press("Enter");
  await olga.getByRole("dialog").waitFor({ state: "detached" });
  expect(await chosen(olga).innerText()).toBe("Acme Stores");
  await row(olga, "Acme Stores").waitFor();
  await row(jane, "Acme Stores").waitFor();
  await expect.poll(() => chosen(jane).innerText()).toBe("Acme Stores");
});

test("two who rename at once: the second is told, and nothing is overwritten", async () => {
  const id = "acme-shops";
  await row(olga, "Acme Stores").getByRole("button", { name: "Rename" }).click();
  const dialog = olga.getByRole("dialog");
  await dialog.getByLabel("Name").fill("Mine");
  await stack.api("POST", "/v1/workspaces", { workspaceId: "elsewhere" }); // of somebody else: it is not in the list
  const other = await olga
    .context()
    .request.patch(`${stack.url}/v1/workspaces/${id}`, { data: { displayName: "Theirs" } });
  expect(other.ok()).toBe(true);
  await watch.expecting(/412|409/, async () => {
    await olga.keyboard.press("Enter");
    await dialog.getByText("Somebody else changed the workspace meanwhile.").waitFor();
  });
  await olga.keyboard.press("Escape");
  await olga.getByRole("button", { name: "Leave" }).click();
  await row(olga, "Theirs").waitFor();
  expect(await row(olga, "elsewhere").count()).toBe(0);
});

test("deleting says what goes and what cannot be removed, wants the name, and leads to another workspace", async () => {
  const asked = olga.context().request;
  await asked.patch(`${stack.url}/v1/workspaces/acme-shops`, { data: { displayName: "Acme Stores" } });
  const integration = `${stack.url}/v1/workspaces/acme-shops/integrations/bitbucket`;
  const begun = (await (await asked.post(`${integration}:connect`, { data: {} })).json()) as { authorizeUrl: string };
  const consent = await asked.get(begun.authorizeUrl);
  await asked.post(consent.url(), { form: { account: "jane-dev", action: "grant" } });
  const repositories = async (query: string) => {
    const r = await asked.get(`${stack.url}/v1/workspaces/acme-shops/repositories?query=${query}`);
    return ((await r.json()) as { repositories: { id: string; fullName: string }[] }).repositories;
  };
  for (const [appId, name] of [
    ["shop", "acme/web"],
    ["legacy", "acme/legacy"],
  ] as const) {
    const repository = (await repositories(name.split("/")[1] ?? "")).find((r) => r.fullName === name)?.id;
    const made = await asked.post(`${stack.url}/v1/workspaces/acme-shops/apps`, {
      data: { appId, app: { repository, branch: "main", autoDeploy: true } },
    });
    expect(made.ok(), await made.text()).toBe(true);
  }
  await visit(olga, `${stack.url}/w/acme-shops/settings/workspaces`);
  await jane.goto(`${stack.url}/w/acme-shops/apps`);
  await jane.getByText("legacy").first().waitFor();

  await row(olga, "Acme Stores").getByRole("button", { name: "Delete" }).click();
  const dialog = olga.getByRole("alertdialog", { name: "Delete Acme Stores?" });
  const goes = dialog.getByRole("list", { name: "What goes" });
  for (const line of [
    "2 apps with releases and history: legacy, shop",
    "The connection to Bitbucket as @jane-dev, with its tokens",
    "2 members, you among them, lose it at once",
  ])
    await goes.getByText(line).waitFor();
  const button = dialog.getByRole("button", { name: "Delete the workspace" });
  expect(await button.getAttribute("aria-disabled")).toBe("true");
  await dialog.getByLabel("Type Acme Stores to delete it").fill("acme stores");
  await olga.keyboard.press("Enter");
  await everywhere(olga, "workspaces-delete");
  expect(await olga.getByRole("alertdialog").count(), "nothing was deleted").toBe(1);
  await olga.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await row(olga, "Acme Stores").getByRole("button", { name: "Delete" }).click();
  await goes.waitFor();
  await dialog.getByLabel("Type Acme Stores to delete it").fill("Acme Stores");
  await olga.keyboard.press("Enter");
  await olga.waitForURL(`${stack.url}/w/default/settings/workspaces`);
  await row(olga, "Acme Stores").getByText("is being deleted").waitFor();
  await everywhere(olga, "workspaces-deleting");
  await jane.getByRole("heading", { name: "Acme Stores is being deleted" }).waitFor(); // without loading anew
  await everywhere(jane, "workspace-being-deleted");
  await jane.getByRole("link", { name: "Open another workspace" }).click();
  await jane.waitForURL(`${stack.url}/w/default/apps`);
  expect(watch.problems).toEqual([]);
});

test("whoever deletes the last workspace sees so, and makes another", async () => {
  const context = await open(browser);
  await signIn(stack, context); // the local owner is in "default" and "elsewhere"
  const page = await context.newPage();
  await page.goto(`${stack.url}/w/elsewhere/settings/workspaces`);
  for (const name of ["elsewhere", "default"]) {
    const own = page.getByRole("listitem").filter({ has: page.locator("code", { hasText: name }) });
    await own.getByRole("button", { name: "Delete" }).click();
    const dialog = page.getByRole("alertdialog");
    await dialog.getByRole("list", { name: "What goes" }).waitFor();
    const title = await dialog.getByRole("heading").innerText();
    await dialog.getByRole("textbox").fill(title.replace("Delete ", "").replace(/\?$/, ""));
    await dialog.getByRole("button", { name: "Delete the workspace" }).click();
    await dialog.waitFor({ state: "detached" });
  }
  await page.waitForURL(`${stack.url}/`);
  await page.getByText("You are in none:").waitFor();
  await expect.poll(() => page.getByText("is being deleted").count()).toBe(2);
  await everywhere(page, "workspaces-none");
  await page.getByRole("button", { name: "Create workspace" }).click();
  await page.getByLabel("Name").fill("Anew");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/w\/anew\/apps$/);
  await page.goto(`${stack.url}/w/anew/settings/workspaces`);
  await row(page, "elsewhere").getByText("is being deleted").waitFor();
  // What the last step brings, minutes later.
  const settingsUrl = "https://bitbucket.org/acme/legacy/admin/webhooks";
  await page.route("**/v1/workspaces?*", async (route) => {
    const answer = await route.fetch();
    const list = (await answer.json()) as { workspaces: { state: string; deletion?: object }[] };
    const left = [{ repositoryFullName: "acme/legacy", settingsUrl, message: "The account is not an admin of it." }];
    for (const w of list.workspaces) {
      if (w.state !== "DELETING") continue;
      w.state = "DELETED";
      w.deletion = { ...w.deletion, webhooksLeft: left, serversAway: ["berlin"] };
    }
    await route.fulfill({ response: answer, json: list });
  });
  const gone = page.getByRole("list", { name: "Deleted workspaces" });
  await gone.getByText("elsewhere").first().waitFor();
  const hook = gone.getByRole("link", { name: "acme/legacy" }).first();
  expect(await hook.getAttribute("href")).toBe(settingsUrl);
  await gone.getByText("berlin is away and removes the releases there when back.").first().waitFor();
  expect(await row(page, "elsewhere").count()).toBe(0);
  await everywhere(page, "workspaces-deleted");
  await page.unrouteAll({ behavior: "wait" });
  await context.close();
});
