// The packed TypeScript client as somebody has it who never saw this repository: installed into an empty
// project, compiled strictly, run against the product.
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { start, type Stack } from "./stack";

const exec = promisify(execFile);
const here = dirname(fileURLToPath(import.meta.url));
const program = process.env["DEVPILOT_PROGRAM"];
const client = resolve(here, "../../client");

let stack: Stack;
let project: string;

beforeAll(async () => {
  if (program === undefined) throw new Error("DEVPILOT_PROGRAM is not set");
  project = await mkdtemp(join(tmpdir(), "devpilot-client-"));
  stack = await start(program, "sample");
  await grant();
}, 180_000);

afterAll(async () => {
  await stack?.stop();
  await rm(project, { recursive: true, force: true });
});

/** Connects the workspace as a browser does: through Bitbucket's page of consent. */
async function grant(): Promise<void> {
  const jar = new Map<string, string>();
  const visit = async (address: string, init: RequestInit = {}): Promise<Response> => {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const r = await fetch(address, { redirect: "manual", ...init, headers: { cookie, ...init.headers } });
    for (const set of r.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(set) ?? [];
      jar.set(name, value);
    }
    return r;
  };
  const post = (path: string, body: unknown) =>
    visit(stack.url + path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  await post("/v1/session", { token: stack.adminToken });
  const begun = await post("/v1/workspaces/default/integrations/bitbucket:connect", { returnPath: "/" });
  const { authorizeUrl } = (await begun.json()) as { authorizeUrl: string };
  const consent = (await visit(authorizeUrl)).headers.get("location") ?? "";
  const granted = await visit(consent, {
    method: "POST",
    body: new URLSearchParams({ account: "jane-dev", action: "grant" }),
  });
  const back = await visit(granted.headers.get("location") ?? "");
  expect(back.headers.get("location")).toContain("bitbucket=connected");
}

/** The examples of the API's reference by operation, as modules, and the lines that all begin with. */
async function examples(): Promise<Map<string, string>> {
  const read = async (path: string) => (await fetch(`${stack.url}/docs/api${path}`)).text();
  const text = (page: string, id: string) => {
    const found = new RegExp(`<pre id="${id}">(.*?)</pre>`, "s").exec(page)?.[1];
    return found?.replace(/&#(\d+);|&(\w+);/g, (_, code: string | undefined, name: string) =>
      code === undefined ? ({ amp: "&", lt: "<", gt: ">" }[name] ?? name) : String.fromCodePoint(Number(code)),
    );
  };
  const index = await read("");
  const prelude = text(index, "example-prelude") ?? "";
  expect(prelude).toContain("connect(");
  const found = new Map<string, string>();
  for (const [, id = ""] of index.matchAll(/<li><a href="\/docs\/api\/(\w+)"/g)) {
    const example = text(await read(`/${id}`), "example-typescript");
    if (example !== undefined)
      found.set(id, `declare const process: { env: Record<string, string> };\n${prelude}\n${example}\nexport {};\n`);
  }
  expect(found.size).toBeGreaterThan(70);
  return found;
}

test("the packed client installs, compiles strictly and deploys", { timeout: 240_000 }, async () => {
  await exec("npm", ["pack", "--silent", "--pack-destination", project], { cwd: client });
  const [tarball = ""] = (await readdir(project)).filter((name) => name.endsWith(".tgz"));
  await writeFile(join(project, "package.json"), JSON.stringify({ name: "empty", private: true, type: "module" }));
  // Nothing is fetched: what the package needs is in it.
  await exec("npm", ["install", "--offline", "--no-audit", "--no-fund", `./${tarball}`], { cwd: project });
  await mkdir(join(project, "src"));
  await cp(join(client, "example", "example.ts"), join(project, "src", "example.ts"));
  await mkdir(join(project, "src", "reference"));
  for (const [id, text] of await examples()) await writeFile(join(project, "src", "reference", `${id}.ts`), text);
  await writeFile(
    join(project, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        module: "nodenext",
        target: "es2022",
        lib: ["es2023", "dom", "dom.iterable"],
        types: [],
        outDir: "out",
      },
      include: ["src"],
    }),
  );
  await exec(process.execPath, [resolve(here, "../node_modules/typescript/bin/tsc"), "-p", project]).catch(
    (e: unknown) => {
      throw new Error(`the example does not compile: ${(e as { stdout: string }).stdout}`);
    },
  );
  const { stdout } = await exec(process.execPath, [join(project, "out", "example.js"), stack.url, stack.adminToken]);
  const said = JSON.parse(stdout) as {
    repository: string;
    lines: string[];
    end: string;
    live: number;
    refused: string;
    changed: string[];
  };
  expect(said).toMatchObject({ repository: "acme/web", end: "COMPLETED", live: 1, refused: "APP_EXISTS" });
  expect(said.lines).toContain("Release 1 is live.");
  expect(said.changed).toContain("deployment");
});

// What only reads, and what was made by the tests before: the others are sent by curl in the product's own tests.
test("examples of the reference run with the client", { timeout: 240_000 }, async () => {
  const env = { PATH: process.env["PATH"] ?? "", DEVPILOT_URL: stack.url, DEVPILOT_KEY: stack.adminToken };
  const run = async (id: string) =>
    (await exec(process.execPath, [join(project, "out", "reference", `${id}.js`)], { env })).stdout;
  expect(await run("createApp")).toContain("id: 'web'");
  expect(await run("createDeployment")).toContain("number: 1");
  expect(await run("readLog")).toContain("Release 1 is live.");
  expect(await run("streamEvents")).toContain("event: 'ready'");
  expect(await run("exportActivity")).toContain("app.create");
  expect(await run("createSession")).toContain("Local owner");
  for (const id of ["getMe", "listWorkspaces", "listApps", "getApp", "listDeployments", "getDeployment", "explain"])
    expect(await run(id), id).toMatch(/^\{/);
  for (const id of ["listRepositories", "getRepository", "listBranches"]) expect(await run(id), id).toContain("main");
});
