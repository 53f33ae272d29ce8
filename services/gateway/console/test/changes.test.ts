import { InfiniteQueryObserver, QueryClient, QueryObserver } from "@tanstack/react-query";
import { expect, test, vi } from "vitest";
import { changes, type Change } from "../src/api/changes";
import type { App, Deployment } from "../src/api/client";

// The API's client names its own address when it is loaded.
vi.hoisted(() => {
  (globalThis as { location?: unknown }).location = { origin: "https://devpilot.test" };
});

const deployment = (more: Partial<Deployment>) =>
  ({
    app: "web",
    number: 2,
    state: "PROCESSING",
    live: false,
    attempt: 1,
    progressPercent: 40,
    etag: "2",
    ...more,
  }) as Deployment;
const app = (more: Partial<App> = {}) =>
  ({ id: "web", updateTime: "2026-11-30T00:00:00Z", need: "DEPLOYING", live: { number: 1 }, ...more }) as App;
const change = (more: Partial<Change>): Change => ({
  kind: "deployment",
  id: "web/2",
  service: "deployer",
  deleted: false,
  time: "",
  ...more,
});
const of = (...rest: unknown[]) => ["ws", "default", ...rest];

/** A page that shows these; what is asked again for is kept. */
function page(shown: [unknown[], unknown][]) {
  vi.useFakeTimers();
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Infinity, retry: false } } });
  const asked: string[] = [];
  for (const [queryKey, data] of shown) {
    const queryFn = () => {
      asked.push(queryKey.slice(2).join(" "));
      return Promise.resolve((data as { pages?: unknown[] }).pages?.[0] ?? data);
    };
    client.setQueryData(queryKey, data);
    if ((data as { pages?: unknown[] }).pages === undefined)
      new QueryObserver(client, { queryKey, queryFn }).subscribe(() => undefined);
    else
      new InfiniteQueryObserver(client, {
        queryKey,
        queryFn,
        initialPageParam: "",
        getNextPageParam: () => undefined,
      }).subscribe(() => undefined);
  }
  const stop = new AbortController();
  const take = changes("default", client, stop.signal);
  return {
    client,
    stop,
    /** Takes a change, and says what is asked for after it. */
    async take(c: Change) {
      asked.length = 0;
      take(c);
      await vi.advanceTimersByTimeAsync(1000);
      return asked.toSorted();
    },
  };
}

const one = of("deployment", "web", "one", 2);
const list = of("deployment", "web", "list", {}, 10);
const failed = of("deployment", "web", "list", { state: "FAILED" }, 30);
const appOne = of("app", "one", "web");
const rows = (...deployments: Deployment[]) => ({ pages: [{ deployments }], pageParams: [""] });

test("what a change brought is shown and not asked for", async () => {
  const p = page([
    [one, deployment({})],
    [list, rows(deployment({}), deployment({ number: 1, live: true }))],
    [appOne, app()],
    [of("deployment", "api", "one", 2), deployment({ app: "api" })],
  ]);
  const object = deployment({ progressPercent: 60, etag: "3" });
  expect(await p.take(change({ object, app: app({ warnings: [] }) }))).toEqual([]);
  expect(p.client.getQueryData(one)).toEqual(object);
  expect(p.client.getQueryData(list)).toEqual(rows(object, deployment({ number: 1, live: true })));
  expect(p.client.getQueryData(appOne)).toEqual(app({ warnings: [] }));
  // A new one is the first row.
  const next = deployment({ number: 3, state: "PENDING" });
  expect(await p.take(change({ id: "web/3", object: next, app: app() }))).toEqual([]);
  expect(p.client.getQueryData(list)).toEqual(rows(next, object, deployment({ number: 1, live: true })));
});

test("what a change did not bring is asked for", async () => {
  const shown: [unknown[], unknown][] = [
    [one, deployment({})],
    [list, rows(deployment({}))],
    [failed, rows()],
    [appOne, app()],
  ];
  expect(await page(shown).take(change({}))).toHaveLength(4);
  expect(await page(shown).take(change({ object: deployment({ etag: "3" }) }))).toEqual([
    "app one web",
    "deployment web list [object Object] 30",
  ]);
  const p = page(shown);
  expect(await p.take(change({ kind: "app", id: "web", deleted: true }))).toEqual(["app one web"]);
  p.stop.abort();
  expect(await p.take(change({}))).toEqual([]);
});

test("an older answer is never put over a newer one", async () => {
  for (const [shown, came] of [
    [deployment({ state: "COMPLETED", etag: "9" }), deployment({})],
    [deployment({ attempt: 2, etag: "9" }), deployment({ progressPercent: 90 })],
    [deployment({ progressPercent: 60, etag: "9" }), deployment({})],
    [deployment({ cancelTime: "2026-11-30T00:00:00Z", etag: "9" }), deployment({})],
  ] as const) {
    const p = page([[one, shown]]);
    expect(await p.take(change({ object: came, app: app() }))).toEqual(["deployment web one 2"]);
    expect(p.client.getQueryData(one)).toEqual(shown);
  }
  const newer = app({ updateTime: "2026-11-30T00:00:01Z" });
  const p = page([[appOne, newer]]);
  expect(await p.take(change({ kind: "app", id: "web", object: app() }))).toEqual(["app one web"]);
  expect(p.client.getQueryData(appOne)).toEqual(newer);
});

test("what is being asked for is asked for again, not put under its answer", async () => {
  const p = page([[one, deployment({})]]);
  const answers: ((d: Deployment) => void)[] = [];
  const asking = p.client.fetchQuery({
    queryKey: one,
    staleTime: 0,
    queryFn: () => new Promise<Deployment>((resolve) => answers.push(resolve)),
  });
  const asked = p.take(change({ object: deployment({ progressPercent: 60, etag: "3" }), app: app() }));
  expect(p.client.getQueryData(one)).toEqual(deployment({}));
  answers[0]?.(deployment({}));
  await asking;
  await asked;
  expect(answers.length).toBe(2);
});

test("which release is live is asked for where the app says another one", async () => {
  const p = page([
    [one, deployment({ state: "COMPLETED" })],
    [list, rows(deployment({ number: 1, live: true }))],
  ]);
  expect(await p.take(change({ kind: "app", id: "web", object: app({ live: { number: 1 } as App["live"] }) }))).toEqual(
    [],
  );
  expect(await p.take(change({ kind: "app", id: "web", object: app({ live: { number: 2 } as App["live"] }) }))).toEqual(
    ["deployment web list [object Object] 10", "deployment web one 2"],
  );
});

test("the integration is put, what stands beside it is not", async () => {
  const p = page([
    [of("integration"), { state: "CONNECTED" }],
    [of("integration", "proof"), { checks: [] }],
  ]);
  const object = { state: "NEEDS_RECONNECT" } as unknown as Change["object"] & object;
  expect(await p.take(change({ kind: "integration", id: "bitbucket", object }))).toEqual(["integration proof"]);
  expect(p.client.getQueryData(of("integration"))).toEqual(object);
  expect(p.client.getQueryData(of("integration", "proof"))).toEqual({ checks: [] });
});
