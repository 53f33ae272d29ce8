import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["*.e2e.ts"],
    environment: "node",
    testTimeout: 120_000,
    hookTimeout: 180_000,
    // One story, told in order: what follows a failure would fail for its sake.
    bail: 1,
    sequence: { concurrent: false },
    // Each file has a product and a browser of its own; the machine bears one of each well.
    fileParallelism: false,
  },
});
