// What a failed test leaves to look at: of each open page where it is, what it shows and its last requests.
import type { BrowserContext, Page, Request } from "playwright-core";
import { TestRunner, type RunnerTask, type RunnerTestCase } from "vitest";

const mostRequests = 30;
const mostText = 1500;

const asked = new Map<Page, Request[]>();

/** Keeps in mind what the pages of a browser ask for. */
export function remember(context: BrowserContext): void {
  context.on("page", (page) => {
    const list: Request[] = [];
    asked.set(page, list);
    page.on("request", (r) => {
      list.push(r);
      if (list.length > mostRequests) list.shift();
    });
    page.on("close", () => asked.delete(page));
  });
}

async function line(r: Request): Promise<string> {
  const { startTime, responseStart, responseEnd } = r.timing();
  const known = responseStart >= 0 ? await r.response() : null;
  const came = known === null ? (r.failure()?.errorText ?? "no answer yet") : String(known.status());
  const took = Math.round(Math.max(responseStart, responseEnd));
  return `  ${new Date(startTime).toISOString().slice(11, 23)} ${r.method()} ${new URL(r.url()).pathname} ${came} ${took} ms`;
}

async function tell(): Promise<void> {
  for (const [page, requests] of asked) {
    const text = await page.locator("body").innerText({ timeout: 5000 }).catch(String);
    const lines = await Promise.all(requests.map(line));
    console.error(
      [new Date().toISOString(), page.url(), ...lines, text.replaceAll(/\n+/g, " | ").slice(0, mostText)].join("\n"),
    );
  }
}

/** Runs the tests: unlike a hook it is there for every file, also where files share their modules. */
export default class extends TestRunner {
  private readonly failed = new Set<string>();

  /** A file tells one story, in order: what follows a failure would fail for its sake. Other files go on. */
  override async onBeforeRunTask(task: RunnerTask): Promise<void> {
    if (this.failed.has(task.file.id)) task.mode = "skip";
    await super.onBeforeRunTask(task);
  }

  override async onAfterRunTask(task: RunnerTestCase): Promise<void> {
    await super.onAfterRunTask(task);
    if (task.result?.state !== "fail") return;
    this.failed.add(task.file.id);
    await tell();
  }
}
