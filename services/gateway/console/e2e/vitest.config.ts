import { defineConfig } from "vitest/config";
import type { Reporter, TestModule } from "vitest/node";

/** How long each file took, in a line of its own. */
class Times implements Reporter {
  private readonly rows: [string, number][] = [];

  onTestModuleEnd(module: TestModule): void {
    const { duration, setupDuration, collectDuration, prepareDuration, environmentSetupDuration } = module.diagnostic();
    this.rows.push([module.relativeModuleId, duration + setupDuration + collectDuration + prepareDuration + environmentSetupDuration]);
  }

  onTestRunEnd(): void {
    for (const [name, ms] of this.rows.toSorted((a, b) => b[1] - a[1])) console.log(`  ${name.padEnd(20)} ${(ms / 1000).toFixed(1).padStart(6)} s`);
  }
}

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["*.e2e.ts"],
    environment: "node",
    testTimeout: 120_000,
    hookTimeout: 180_000,
    reporters: ["default", new Times()],
    // One story, told in order: what follows a failure would fail for its sake.
    bail: 1,
    sequence: { concurrent: false },
    // Each file has a product and a browser of its own, and waits for them half of the time: two fill two cores.
    pool: "forks",
    maxWorkers: 2,
  },
});
