// Compiles the page and serves it from an origin of its own: node example-page/serve.mjs [port], after npm run build.
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const client = join(here, "..");
const out = mkdtempSync(join(tmpdir(), "devpilot-page-"));
process.on("exit", () => rmSync(out, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));

execFileSync(process.execPath, [join(client, "node_modules/typescript/bin/tsc"), "-p", here, "--outDir", out], {
  stdio: "inherit",
});

/** The files that there are, by what is asked for; the client is served as it was built. */
function fileOf(path) {
  if (path === "/") return join(here, "index.html");
  if (path === "/page.js") return join(out, "page.js");
  if (path === "/openapi-fetch.js") return join(client, "node_modules/openapi-fetch/dist/index.mjs");
  const name = /^\/client\/([a-z-]+\.js)$/.exec(path)?.[1];
  return name === undefined ? undefined : join(client, "dist", name);
}

const server = createServer((request, answer) => {
  try {
    const file = fileOf(new URL(request.url ?? "/", "http://localhost").pathname);
    if (file === undefined) throw new Error("no such file");
    const type = extname(file) === ".html" ? "text/html" : "text/javascript";
    answer.writeHead(200, { "Content-Type": `${type}; charset=utf-8` }).end(readFileSync(file));
  } catch {
    answer.writeHead(404).end();
  }
});
server.listen(Number(process.argv[2] ?? 5173), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
