import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";
// Writes what the client knows of the API, from the document of now.
import "../client/scripts/facts.mjs";

const outDir = "../internal/console/dist/site";

// The gateway sends what was compressed here, once and as well as can be.
function compress(): Plugin {
  return {
    name: "compress",
    apply: "build",
    closeBundle() {
      const dir = join(import.meta.dirname, outDir, "assets");
      for (const name of readdirSync(dir)) {
        if (!/\.(js|css|svg)$/.test(name)) continue;
        const content = readFileSync(join(dir, name));
        writeFileSync(join(dir, name + ".gz"), gzipSync(content, { level: 9 }));
        writeFileSync(
          join(dir, name + ".br"),
          brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }),
        );
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), compress()],
  // The gateway puts a fresh nonce in place of this word in every answer.
  html: { cspNonce: "__CSP_NONCE__" },
  // The client is built from its sources, with the openapi-fetch that is installed here.
  resolve: {
    alias: { "@devpilot/client": join(import.meta.dirname, "../client/src/index.ts") },
    dedupe: ["openapi-fetch"],
  },
  build: {
    outDir,
    emptyOutDir: true,
    target: "es2022",
    // A data: URL would need a wider Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    // What every page needs is one file: it compresses better than several.
    rolldownOptions: { output: { codeSplitting: { groups: [{ name: "first", tags: ["$initial"] }] } } },
  },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
} as Parameters<typeof defineConfig>[0]);
