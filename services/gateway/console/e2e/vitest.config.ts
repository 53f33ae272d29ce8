import { defineConfig } from "vitest/config";
import { BaseSequencer, type Reporter, type TestModule, type TestSpecification } from "vitest/node";

/** How long each file took, in a line of its own. */
class Times implements Reporter {
  private readonly rows: [string, number][] = [];

  onTestModuleEnd(module: TestModule): void {
    const { duration, setupDuration, collectDuration, prepareDuration, environmentSetupDuration } = module.diagnostic();
    this.rows.push([
      module.relativeModuleId,
      duration + setupDuration + collectDuration + prepareDuration + environmentSetupDuration,
    ]);
  }

  onTestRunEnd(): void {
    for (const [name, ms] of this.rows.toSorted((a, b) => b[1] - a[1]))
      console.log(`  ${name.padEnd(20)} ${(ms / 1000).toFixed(1).padStart(6)} s`);
  }
}

/** The longest first, so that the last to end ends soon after the others. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const order = ["patient", "states", "pages", "console", "silent", "long", "depth", "figures", "live", "charts"];
    const place = (f: TestSpecification) => {
      const at = order.findIndex((name) => f.moduleId.endsWith(`/${name}.e2e.ts`));
      return at < 0 ? order.length : at; // the short ones fill what is left
    };
    return files.toSorted((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["*.e2e.ts"],
    exclude: process.env["CONSOLE_PATIENT"] === undefined ? ["patient.e2e.ts"] : [],
    environment: "node",
    runner: "./failed.ts",
    testTimeout: 300_000,
    hookTimeout: 180_000,
    // A busy machine is no failure: what is waited for has as long here as in the browser.
    expect: { poll: { timeout: 45_000, interval: 50 } },
    reporters: ["default", new Times()],
    sequence: { concurrent: false, sequencer: LongestFirst },
    // Each file has a product and a browser of its own, and waits for them half of the time: two fill two cores.
    pool: "forks",
    // What one file loaded serves the next: Playwright alone takes seconds to load.
    isolate: false,
    maxWorkers: 2,
  },
});
