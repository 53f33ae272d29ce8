// The product as it ships, with the emulator: started on free ports, stopped at the end, its data in
// a temporary directory. The product is on 127.0.0.1 and the emulator on localhost, so that the two
// are different sites, as in life.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const exec = promisify(execFile);

export interface Stack {
  url: string;
  site: string;
  adminToken: string;
  /** A call of the emulator's control API. */
  control: (method: string, path: string, body?: unknown) => Promise<unknown>;
  /** A call of the product's API as the operator. */
  api: <T>(method: string, path: string, body?: unknown) => Promise<T>;
  /** Commits a file to the repository and pushes it to the branch. */
  push: (repository: string, branch: string, message: string) => Promise<void>;
  stop: () => Promise<void>;
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const s = createServer();
    s.once("error", reject);
    s.listen(0, "127.0.0.1", () => {
      const address = s.address();
      s.close(() => (address !== null && typeof address === "object" ? resolve(address.port) : reject(new Error("no port"))));
    });
  });
}

/** Waits until the condition holds; says what it waited for when it does not in time. */
export async function eventually<T>(what: string, condition: () => Promise<T | undefined | false>, ms = 60_000): Promise<T> {
  const deadline = Date.now() + ms;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      const got = await condition();
      if (got !== undefined && got !== false) return got;
    } catch (e) {
      last = e;
    }
    await new Promise((r) => setTimeout(r, 100));
  }
  throw new Error(`waited ${ms / 1000} s for ${what}${last === undefined ? "" : `: ${String(last)}`}`);
}

export async function start(program: string, scenario: string): Promise<Stack> {
  const dir = await mkdtemp(join(tmpdir(), "devpilot-console-"));
  const [port, ops, bitbucket] = [await freePort(), await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const site = `http://localhost:${bitbucket}`;
  const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith("DEVPILOT_")));
  const child: ChildProcess = spawn(
    program,
    ["--emulator", "--emulator-scenario", scenario, "--data-dir", join(dir, "data"), "--listen", `127.0.0.1:${port}`, "--ops-listen", `127.0.0.1:${ops}`, "--emulator-listen", `localhost:${bitbucket}`],
    { env, stdio: ["ignore", "pipe", "pipe"] },
  );
  let output = "";
  child.stdout?.on("data", (d: Buffer) => (output += d.toString()));
  child.stderr?.on("data", (d: Buffer) => (output += d.toString()));
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
    await ended;
    clearTimeout(timer);
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await eventually("the product to be ready", async () => {
      if (child.exitCode !== null) throw new Error(`it ended: ${output.slice(-2000)}`);
      return (await fetch(`http://127.0.0.1:${ops}/readyz`)).ok;
    }, 90_000);
  } catch (e) {
    await stop();
    throw new Error(`${String(e)}\n${output.slice(-4000)}`);
  }
  const adminToken = (await readFile(join(dir, "data", "admin.token"), "utf8")).trim();
  const call = async (base: string, method: string, path: string, body: unknown, headers: Record<string, string>): Promise<unknown> => {
    const r = await fetch(base + path, {
      method,
      headers: { "Content-Type": "application/json", ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await r.text();
    if (!r.ok) throw new Error(`${method} ${path}: ${r.status} ${text}`);
    return text === "" ? undefined : (JSON.parse(text) as unknown);
  };
  let pushes = 0;
  return {
    url,
    site,
    adminToken,
    stop,
    control: (method, path, body) => call(site, method, `/_emulator/${path}`, body, {}),
    api: <T,>(method: string, path: string, body?: unknown) => call(url, method, path, body, { Authorization: `Bearer ${adminToken}` }) as Promise<T>,
    push: async (repository, branch, message) => {
      const work = join(dir, `push-${pushes++}`);
      const remote = site.replace("http://", "http://jane-dev:jane-dev-password@") + `/${repository}.git`;
      const git = (...args: string[]) =>
        exec("git", ["-c", "user.name=Jane Developer", "-c", "user.email=jane@example.com", ...args], { env: { ...env, GIT_TERMINAL_PROMPT: "0", GIT_CONFIG_NOSYSTEM: "1", HOME: dir } });
      await git("clone", "-q", "--depth", "1", "--branch", branch, remote, work);
      await git("-C", work, "commit", "-q", "--allow-empty", "-m", message);
      await git("-C", work, "push", "-q", "origin", `HEAD:${branch}`);
    },
  };
}
