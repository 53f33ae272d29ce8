// Chromium, and what every page must bear: no error in the console, no violation of the
// Content-Security-Policy, no finding of axe in either colour scheme.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import axe from "axe-core";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { expect } from "vitest";

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
let shot = 0;

/** Runs axe in both colour schemes, and keeps a picture of each where CONSOLE_SHOTS names a directory. */
export async function check(page: Page, name: string): Promise<void> {
  shot++;
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await page.evaluate(axe.source);
    const found = await page.evaluate(async () => {
      const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run(document, {
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
      });
      return violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.target.join(" ")} ${n.any[0]?.message ?? ""}`).slice(0, 4).join(" | ")}`);
    });
    if (shots !== undefined) await picture(page, `${String(shot).padStart(2, "0")}-${name}-${scheme}`);
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
