// Chromium, and what every page must bear: no error in the console, no violation of the
// Content-Security-Policy, no finding of axe in either colour scheme.
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import type axe from "axe-core";
import {
  chromium,
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  type Locator,
  type Page,
} from "playwright-core";
import { expect } from "vitest";
import { remember } from "./failed";
import { start, type Stack } from "./stack";

export async function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
      "--disable-extensions",
      "--disable-default-apps",
    ],
  });
}

/** Collects what must not happen. Expected ones are named by a pattern while they are. */
export class Watch {
  readonly problems: string[] = [];
  private expected: RegExp[] = [];

  constructor(context: BrowserContext) {
    context.on("page", (page) => this.page(page));
  }

  private page(page: Page): void {
    page.on("pageerror", (e) => this.note(page, `uncaught: ${e.message}`));
    page.on("console", (m) => {
      if (m.type() === "error" || m.type() === "warning")
        this.note(page, `${m.type()}: ${m.text()} (${m.location().url})`);
    });
    page.on("requestfailed", (r) => {
      // Leaving a page ends its streams and loads.
      if (r.failure()?.errorText !== "net::ERR_ABORTED")
        this.note(page, `failed: ${r.url()} ${r.failure()?.errorText ?? ""}`);
    });
  }

  private note(page: Page, text: string): void {
    if (!this.expected.some((p) => p.test(text))) this.problems.push(`${new URL(page.url()).pathname}: ${text}`);
  }

  /** Chromium writes refused requests to the console by itself. */
  async expecting<T>(pattern: RegExp, action: () => Promise<T>): Promise<T> {
    this.expected.push(pattern);
    try {
      return await action();
    } finally {
      this.expected = this.expected.filter((p) => p !== pattern);
    }
  }
}

const shots = process.env["CONSOLE_SHOTS"];

// All rules of the standards, and axe's own advice; none is switched off.
const standards = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

type Axe = typeof axe;
// The small build: half as long for each document to take in.
const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

async function violations(page: Page): Promise<string[]> {
  // Once a document: the next check on the same page finds it there.
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(source);
  return page.evaluate(async (standards) => {
    const { violations } = await (globalThis as unknown as { axe: Axe }).axe.run(document, {
      runOnly: { type: "tag", values: standards },
      resultTypes: ["violations"],
      preload: false,
      iframes: false,
    });
    return violations.map(
      (v) =>
        `${v.id}: ${v.help}: ${v.nodes
          .map((n) => `${n.target.join(" ")} ${n.any[0]?.message ?? ""}`)
          .slice(0, 4)
          .join(" | ")}`,
    );
  }, standards);
}

/**
 * Runs axe on the whole page in both colour schemes, and keeps a picture of each where CONSOLE_SHOTS names a
 * directory: of what the window shows, or of the whole page.
 */
export async function check(page: Page, name: string, whole = false): Promise<void> {
  const found: Record<string, string[]> = {};
  await page.locator("h1").first().waitFor({ state: "attached" }); // a page's part may still be on its way
  for (const scheme of ["dark", "light"] as const) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    found[scheme] = await violations(page);
    if (shots !== undefined) await picture(page, `${name}-${scheme}`, whole);
  }
  expect.soft(found, `axe on ${name}`).toEqual({ dark: [], light: [] });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect.soft(wide, `${name} scrolls sideways`).toBeLessThanOrEqual(0);
}

/**
 * Waits until the focus is there; says where it is if it does not come. What opens or closes moves it a moment after it
 * is seen: a key that is pressed before goes to what had it.
 */
export async function focused(target: Locator): Promise<void> {
  await expect
    .poll(() =>
      target.evaluate((e) => {
        const has = document.activeElement;
        if (e === has) return "there";
        const kept = e.closest("[inert]") === null ? "" : ", and it is kept out of reach";
        return `at ${has?.outerHTML.slice(0, 200) ?? "nothing"}${kept}`;
      }),
    )
    .toBe("there");
}

/** Waits until the focus is in a dialog, so that a key goes to it. */
export async function focusIn(dialog: Locator): Promise<void> {
  await expect.poll(() => dialog.evaluate((e) => e.contains(document.activeElement))).toBe(true);
}

/** The same page on a narrow screen. */
export async function narrow(page: Page, name: string): Promise<void> {
  await page.setViewportSize({ width: 360, height: 740 });
  await check(page, `${name}-narrow`);
  await page.setViewportSize({ width: 1280, height: 860 });
}

async function picture(page: Page, name: string, whole: boolean): Promise<void> {
  if (shots === undefined) return;
  await mkdir(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`), fullPage: whole });
}

/** The kind of page that an address leads to. */
const kind = (path: string) => path.replace(/\/apps\/(?!new$)[^/]+/, "/apps/*").replace(/\/\d+$/, "/*");

/**
 * Goes to another page of the console as a link in it does: what is loaded stays, axe too. Two pages of
 * one kind look alike for a moment, so from one to the other the browser loads anew, as from elsewhere.
 */
export async function visit(page: Page, url: string): Promise<void> {
  const to = new URL(url);
  const here = new URL(page.url());
  const another = here.pathname !== to.pathname;
  if (
    here.origin !== to.origin ||
    !here.pathname.startsWith("/w/") ||
    (another && kind(here.pathname) === kind(to.pathname))
  ) {
    await page.goto(url);
    return;
  }
  await page.evaluate(
    (path) => {
      document.querySelector("main > *")?.setAttribute("data-left", "");
      history.pushState(null, "", path);
      dispatchEvent(new PopStateEvent("popstate"));
    },
    to.pathname + to.search + to.hash,
  );
  if (another) await page.locator("[data-left]").waitFor({ state: "detached" });
}

/** A product with a browser: what a file of tests begins with. */
export interface Scene {
  stack: Stack;
  browser: Browser;
  context: BrowserContext;
  page: Page;
  watch: Watch;
  /** An address within the workspace "default". */
  at: (path: string) => string;
  /** Goes to an address within the workspace "default". */
  visit: (path: string) => Promise<void>;
  /** Nothing that must not happen has happened. */
  calm: () => void;
  end: () => Promise<void>;
}

/** Starts the product with a scenario of the emulator and further settings, and a browser that is signed in if asked to. */
export async function scene(scenario: string, signedIn = true, settings: Record<string, string> = {}): Promise<Scene> {
  const program = process.env["DEVPILOT_PROGRAM"];
  if (program === undefined)
    throw new Error("DEVPILOT_PROGRAM must name the built all-in-one; make test-console sets it");
  const [stack, browser] = await Promise.all([start(program, scenario, [], settings), launch()]);
  const context = await open(browser);
  const watch = new Watch(context);
  if (signedIn) await signIn(stack, context);
  const page = await context.newPage();
  return {
    stack,
    browser,
    context,
    page,
    watch,
    at: (path) => `${stack.url}/w/default/${path}`,
    visit: (path) => visit(page, `${stack.url}/w/default/${path}`),
    calm: () => expect(watch.problems).toEqual([]),
    end: async () => {
      await browser.close();
      await stack.stop();
    },
  };
}

export async function open(browser: Browser, options: BrowserContextOptions = {}): Promise<BrowserContext> {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 860 },
    reducedMotion: "reduce",
    ...options,
  });
  context.setDefaultTimeout(45_000);
  remember(context);
  return context;
}

export async function signIn(stack: Stack, context: BrowserContext): Promise<void> {
  const answer = await context.request.post(`${stack.url}/v1/session`, { data: { token: stack.adminToken } });
  if (!answer.ok()) throw new Error(`sign in: ${answer.status()} ${await answer.text()}`);
}

/** Presses Connect, or what is named, and comes to Bitbucket's consent page. */
export async function toConsent(stack: Stack, page: Page, button = "Connect"): Promise<void> {
  await page.getByRole("button", { name: button, exact: true }).click();
  await page.waitForURL(`${stack.site}/**`);
  const account = page.getByRole("button", { name: /jane-dev/ });
  if (await account.isVisible()) await account.click();
  await page.getByRole("button", { name: "Grant access" }).waitFor();
}

/** Connects a workspace without its page: what the browser would send, by the same session. */
export async function connect(stack: Stack, context: BrowserContext, workspace = "default"): Promise<void> {
  const begun = await context.request.post(`${stack.url}/v1/workspaces/${workspace}/integrations/bitbucket:connect`, {
    data: {},
  });
  const { authorizeUrl } = (await begun.json()) as { authorizeUrl: string };
  const consent = await context.request.get(authorizeUrl); // our start page leads to Bitbucket's
  await context.request.post(consent.url(), { form: { account: "jane-dev", action: "grant" } });
  const { state } = await stack.api<{ state: string }>("GET", `/v1/workspaces/${workspace}/integrations/bitbucket`);
  if (state !== "CONNECTED") throw new Error(`${workspace} is ${state}, not connected`);
}

/** Connects the workspace that the page shows the integrations of. */
export async function grant(stack: Stack, page: Page, button = "Connect"): Promise<void> {
  await toConsent(stack, page, button);
  await page.getByRole("button", { name: "Grant access" }).click();
  await page.waitForURL("**/settings/integrations?bitbucket=connected");
}
