// Chromium, and what every page must bear: no error in the console, no violation of the
// Content-Security-Policy, no finding of axe in either colour scheme.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import axe from "axe-core";
import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Page } from "playwright-core";
import { expect } from "vitest";
import { start, type Stack } from "./stack";

export async function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions", "--disable-default-apps"],
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
      if (m.type() === "error" || m.type() === "warning") this.note(page, `${m.type()}: ${m.text()} (${m.location().url})`);
    });
    page.on("requestfailed", (r) => {
      // Leaving a page ends its streams and loads.
      if (r.failure()?.errorText !== "net::ERR_ABORTED") this.note(page, `failed: ${r.url()} ${r.failure()?.errorText ?? ""}`);
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

// While a combobox is open React Aria hides the rest of the page from screen readers, so that they
// stay within the list; leaving by Tab closes it and shows the page again. These rules take that for
// a fault (aria-hidden-focus is one that React Aria's authors answer so).
const whileListOpen = ["aria-hidden-focus", "label-title-only", "page-has-heading-one", "region", "landmark-one-main", "bypass"];

/** Runs axe in both colour schemes, and keeps a picture of each where CONSOLE_SHOTS names a directory. */
export async function check(page: Page, name: string, { listOpen = false } = {}): Promise<void> {
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await page.evaluate(axe.source);
    const found = await page.evaluate(async (off) => {
      const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run(document, {
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
        rules: Object.fromEntries(off.map((rule) => [rule, { enabled: false }])),
      });
      return violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.target.join(" ")} ${n.any[0]?.message ?? ""}`).slice(0, 4).join(" | ")}`);
    }, listOpen ? whileListOpen : []);
    if (shots !== undefined) await picture(page, `${name}-${scheme}`);
    expect.soft(found, `axe on ${name} in ${scheme}`).toEqual([]);
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect.soft(wide, `${name} scrolls sideways`).toBeLessThanOrEqual(0);
}

/** The same page on a narrow screen. */
export async function narrow(page: Page, name: string): Promise<void> {
  await page.setViewportSize({ width: 360, height: 740 });
  await check(page, `${name}-narrow`);
  await page.setViewportSize({ width: 1280, height: 860 });
}

async function picture(page: Page, name: string): Promise<void> {
  if (shots === undefined) return;
  await mkdir(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`) });
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
  /** Nothing that must not happen has happened. */
  calm: () => void;
  end: () => Promise<void>;
}

/** Starts the product with a scenario of the emulator, and a browser that is signed in if asked to. */
export async function scene(scenario: string, signedIn = true): Promise<Scene> {
  const program = process.env["DEVPILOT_PROGRAM"];
  if (program === undefined) throw new Error("DEVPILOT_PROGRAM must name the built all-in-one; make test-console sets it");
  const [stack, browser] = await Promise.all([start(program, scenario), launch()]);
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
    calm: () => expect(watch.problems).toEqual([]),
    end: async () => {
      await browser.close();
      await stack.stop();
    },
  };
}

export async function open(browser: Browser, options: BrowserContextOptions = {}): Promise<BrowserContext> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(20_000);
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

/** Connects the workspace that the page shows the integrations of. */
export async function grant(stack: Stack, page: Page, button = "Connect"): Promise<void> {
  await toConsent(stack, page, button);
  await page.getByRole("button", { name: "Grant access" }).click();
  await page.waitForURL("**/settings/integrations?bitbucket=connected");
}
