// Who connected Bitbucket leaves; an owner is told, and connects another account in its place.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Browser, Page } from "playwright-core";
import { check, launch, toConsent, visit } from "./browser";
import { provide, type Provider } from "./provider";
import { createApp, eventually, start, type Stack } from "./stack";

let stack: Stack;
let browser: Browser;
let provider: Provider;
let olga: Page;

interface Integration {
  account: { label: string };
  connectedBy: string;
  connectionId: string;
  warning?: string;
}
const integration = () => stack.api<Integration>("GET", "/v1/workspaces/default/integrations/bitbucket");

beforeAll(async () => {
  const program = process.env["DEVPILOT_PROGRAM"];
  if (program === undefined) throw new Error("DEVPILOT_PROGRAM must name the built all-in-one");
  provider = await provide({
    olga: { name: "Olga Owner", email: "olga@example.com", role: "owner" },
    jane: { name: "Jane Developer", email: "jane@example.com", role: "admin" },
  });
  [stack, browser] = await Promise.all([start(program, "sample", provider.args), launch()]);
  olga = await provider.person(browser, "olga", `${stack.url}/sign-in`);
  const jane = await provider.person(browser, "jane", `${stack.url}/sign-in`);
  await visit(jane, `${stack.url}/w/default/settings/integrations`);
  await toConsent(stack, jane);
  await jane.getByRole("button", { name: "Grant access" }).click();
  await jane.waitForURL("**/settings/integrations?bitbucket=connected");
  await jane.getByText("by you").waitFor();
  await jane.context().close();
  await createApp(stack, "web", "acme/web", true);
  await createApp(stack, "notes", "jane-dev/notes", true);
});

afterAll(async () => {
  await browser?.close();
  await stack?.stop();
  await provider?.stop();
});

/** At a desk and on a telephone, in both schemes. */
async function everywhere(name: string): Promise<void> {
  await check(olga, name, true);
  await olga.setViewportSize({ width: 390, height: 844 });
  await check(olga, `${name}-390`, true);
  await olga.setViewportSize({ width: 1280, height: 860 });
}

/** Grants access as the account, and comes back. */
async function as(account: RegExp, button: string): Promise<void> {
  await olga.getByRole("button", { name: button, exact: true }).click();
  await olga.waitForURL(`${stack.site}/**`);
  const choice = olga.getByRole("button", { name: account });
  if (await choice.isVisible()) await choice.click();
  await olga.getByRole("button", { name: "Grant access" }).click();
  await olga.waitForURL(`${stack.url}/w/default/settings/integrations?*`);
}

test("an owner's open page says that who connected has left, without loading anew", async () => {
  await visit(olga, `${stack.url}/w/default/settings/integrations`);
  await olga.getByText("by Jane Developer").waitFor();
  const { members } = await stack.api<{ members: { id: string; label: string }[] }>(
    "GET",
    "/v1/workspaces/default/members",
  );
  const jane = members.find((m) => m.label === "Jane Developer");
  await stack.api("DELETE", `/v1/workspaces/default/members/${jane?.id}`);
  await olga.getByText("Who connected Bitbucket is no longer a member.").waitFor();
  await olga.getByText(/Deployments go on with the account @jane-dev/).waitFor();
  await everywhere("connector-left");
  await visit(olga, `${stack.url}/w/default/apps`);
  await olga.getByText("Who connected Bitbucket is no longer a member.").waitFor();
  await everywhere("connector-left-apps");
  await visit(olga, `${stack.url}/w/default/activity`);
  await olga.getByText(/Connected by Jane Developer, who is no longer a member/).waitFor();
});

test("an account that would stop apps changes nothing, and says which", async () => {
  const before = await integration();
  await visit(olga, `${stack.url}/w/default/settings/integrations`);
  await as(/acme-admin/, "Connect your account");
  await olga.getByText("The account cannot reach the repositories of notes, which would stop deploying.").waitFor();
  expect(await integration()).toMatchObject({ connectionId: before.connectionId, account: { label: "jane-dev" } });
  await everywhere("apps-would-stop");
});

test("wanted all the same it takes the other's place: what it reaches deploys on, the other app says why not", async () => {
  await as(/acme-admin/, "Connect it all the same");
  await olga.getByText("Bitbucket is connected.").waitFor();
  await olga.getByText("by you").waitFor();
  expect(await olga.getByText("Who connected Bitbucket is no longer a member.").count()).toBe(0);
  const after = await integration();
  expect(after).toMatchObject({ account: { label: "acme-admin" }, connectedBy: "Olga Owner" });
  expect(after.warning).toBeUndefined();
  await everywhere("taken-over");
  await stack.push("acme/web", "main", "Say who we are");
  await eventually("the push to be live", async () => {
    const app = await stack.api<{ live?: { number: number } }>("GET", "/v1/workspaces/default/apps/web");
    return (app.live?.number ?? 0) >= 2;
  });
});
