// devpilot login: the command waits, the person compares the code and approves or denies, and the command has a key.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Browser, Page } from "playwright-core";
import { check, focused, launch, open, Watch } from "./browser";
import { provide, type Provider } from "./provider";
import { eventually, start, type Stack } from "./stack";

const program = process.env["DEVPILOT_PROGRAM"] ?? "";
let stack: Stack;
let browser: Browser;
let provider: Provider;
let olga: Page;
let jane: Page;
let watch: Watch;
let home: string;

beforeAll(async () => {
  if (program === "") throw new Error("DEVPILOT_PROGRAM must name the built all-in-one");
  home = await mkdtemp(join(tmpdir(), "devpilot-login-"));
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
  await rm(home, { recursive: true, force: true });
});

interface Command {
  code: string;
  page: string;
  /** What it said, and how it ended. */
  end: Promise<{ exit: number | null; said: string }>;
}

/** Runs a command on a machine without a browser. */
function run(...words: string[]) {
  const child = spawn(program, words, {
    env: { HOME: home, XDG_CONFIG_HOME: home, PATH: "/nowhere" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const seen = { said: "" };
  child.stdout.on("data", (d: Buffer) => (seen.said += d.toString()));
  child.stderr.on("data", (d: Buffer) => (seen.said += d.toString()));
  const end = once(child, "close").then(() => ({ exit: child.exitCode, said: seen.said }));
  return { seen, end };
}

/** Runs devpilot login until it waits. */
async function command(): Promise<Command> {
  const { seen, end } = run("login", stack.url, "--browser");
  return eventually("the command to show a code", async () => {
    const code = /^ {2}([A-Z]{4}-[A-Z]{4})$/m.exec(seen.said)?.[1];
    const page = /^ {2}(http\S+)$/m.exec(seen.said)?.[1];
    return code !== undefined && page !== undefined && { code, page, end };
  });
}

/** At a desk and on a telephone, in both schemes. */
async function everywhere(page: Page, name: string): Promise<void> {
  await check(page, name, true);
  await page.setViewportSize({ width: 390, height: 844 });
  await check(page, `${name}-390`, true);
  await page.setViewportSize({ width: 1280, height: 860 });
}

const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });

test("an owner compares the code, chooses, approves, and the command is signed in with an ordinary key", async () => {
  const asks = await command();
  await olga.goto(asks.page);
  await olga.getByRole("heading", { name: asks.code }).waitFor();
  await olga.getByText("Nobody has checked that.").waitFor();
  await olga.getByText("127.0.0.1").waitFor();
  await everywhere(olga, "login");
  await olga.getByLabel("Workspace").selectOption("default");
  await olga.getByRole("radio", { name: /^Admin/ }).check();
  await olga.getByLabel("Ends").selectOption("7");
  await button(olga, "Approve").click();
  await olga.getByText("Go back to the terminal").waitFor();
  await everywhere(olga, "login-approved");
  const ended = await asks.end;
  expect(ended.exit, ended.said).toBe(0);
  expect(ended.said).toContain("in workspace default, with the scope ADMIN");
  expect(ended.said).not.toMatch(/dp[kl]_/);
  expect(await readFile(join(home, "devpilot", "credentials.json"), "utf8")).toMatch(/dpk_/);
  const who = await run("whoami").end;
  expect(who.exit, who.said).toBe(0);
  expect(who.said).toContain("ADMIN");
  await olga.goto(`${stack.url}/w/default/settings/api-keys`);
  const row = olga.getByRole("list", { name: "API keys" }).getByRole("listitem").filter({ hasText: "devpilot on" });
  await row.getByText("by you").waitFor();
  await watch.expecting(/404/, async () => {
    await olga.goto(asks.page); // it works once
    await olga.getByText("There is no such login request").waitFor();
  });
});

test("a member types the code with the keyboard alone, cannot give more than the own role, and denies", async () => {
  const asks = await command();
  await jane.goto(`${stack.url}/login`);
  await jane.getByLabel("Code", { exact: true }).waitFor();
  await everywhere(jane, "login-code");
  await focused(jane.getByLabel("Code", { exact: true }));
  await jane.keyboard.type(asks.code.toLowerCase().replace("-", " "));
  await jane.keyboard.press("Enter");
  await jane.getByRole("heading", { name: asks.code }).waitFor();
  expect(await jane.getByRole("radio", { name: /^Admin/ }).isDisabled()).toBe(true);
  await jane.getByText("You are a member of this workspace.").waitFor();
  await everywhere(jane, "login-of-a-member");
  await button(jane, "Approve").focus();
  await jane.keyboard.press("Tab");
  expect(await button(jane, "Deny").evaluate((b) => b === document.activeElement)).toBe(true);
  await jane.keyboard.press("Enter");
  await jane.getByText("The command line was not let in.").waitFor();
  await everywhere(jane, "login-denied");
  const ended = await asks.end;
  expect(ended.exit, ended.said).toBe(4);
  expect(ended.said).toContain("Next: devpilot login");
});

test("who is not signed in signs in first and comes back to the page; nothing is decided by opening it", async () => {
  const asks = await command();
  const stranger = await (await open(browser)).newPage();
  await stranger.goto(asks.page);
  await stranger.waitForURL(/\/sign-in\?next=/);
  await stranger.context().close();
  const page = await provider.person(
    browser,
    "jane",
    `${stack.url}/sign-in?next=${encodeURIComponent(asks.page.slice(stack.url.length))}`,
  );
  await page.getByRole("heading", { name: asks.code }).waitFor();
  await page.reload();
  await page.getByRole("heading", { name: asks.code }).waitFor(); // still undecided
  await button(page, "Approve").click();
  await page.getByText("Go back to the terminal").waitFor();
  const ended = await asks.end;
  expect(ended.exit, ended.said).toBe(0);
  expect(ended.said).toContain("with the scope DEPLOY");
  await page.context().close();
});

test("nothing else happened", () => {
  expect(watch.problems).toEqual([]);
});
