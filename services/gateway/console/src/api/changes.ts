// What a change makes of what is shown: what it brought along is put in place, the rest is asked for again. Loaded with
// the first change.
import type { InfiniteData, Query, QueryClient } from "@tanstack/react-query";
import type { App, Deployment, Webhook } from "./client";
import type { components } from "@devpilot/client";
import { isGoing, keys } from "./queries";
import { ended } from "../lib/words";

export type Change = components["schemas"]["Change"];

// What a kind of change makes old, beside the kind itself.
const concerns: Record<string, string[]> = {
  deployment: ["app"],
  webhook: ["app"],
  repository: ["app"],
  integration: ["app", "repositories", "webhook"],
  app: ["activity"],
  members: ["integration"], // who connected may have left
};

/** How long a burst of events is collected. */
const pause = 80;
/** How long a question that is under way is waited for before it is given up for a newer one. */
const patience = 5000;

/**
 * Has what a page shows asked for again. What is under way may be from before, so that it is asked for once more when
 * it is here. It is not given up for that: where answers take longer than the next event, none would ever come.
 */
async function renew(client: QueryClient, queryKey: readonly unknown[], old: (q: Query) => boolean): Promise<void> {
  const inTime = (what: Promise<unknown>) =>
    Promise.race([what.catch(() => undefined), new Promise((r) => setTimeout(r, patience))]);
  const under = new Set(client.getQueryCache().findAll({ queryKey, fetchStatus: "fetching", predicate: old }));
  const others = client.invalidateQueries({ queryKey, predicate: (q) => old(q) && !under.has(q) });
  await inTime(Promise.allSettled([others, ...Array.from(under, (q) => q.promise)]));
  if (under.size > 0) await inTime(client.invalidateQueries({ queryKey, predicate: (q) => under.has(q) }));
}

/** Whether a deployment may be from before what is shown of it; then it is asked for. */
function older(d: Deployment, shown: Deployment): boolean {
  if (d.etag === shown.etag) return false;
  if (shown.attempt !== d.attempt) return shown.attempt > d.attempt;
  if (ended(d.state)) return false;
  return (
    ended(shown.state) ||
    shown.progressPercent > d.progressPercent ||
    (shown.cancelTime !== undefined && d.cancelTime === undefined)
  );
}

function olderApp(a: App, shown: App): boolean {
  const [now, before] = [a.latest, shown.latest];
  return (
    Date.parse(a.updateTime) < Date.parse(shown.updateTime) ||
    (before?.number ?? 0) > (now?.number ?? 0) ||
    (before !== undefined && before.number === now?.number && ended(before.state) && !ended(now.state))
  );
}

type Pages<Name extends string, Row> = InfiniteData<Record<Name, Row[]>>;

/** The list with another row in the place of one; undefined when it has none. */
function withRow<Name extends string, Row>(
  list: Pages<Name, Row>,
  name: Name,
  same: (row: Row) => boolean,
  row: Row,
): Pages<Name, Row> | undefined {
  if (!list.pages.some((p) => p[name].some(same))) return undefined;
  return { ...list, pages: list.pages.map((p) => ({ ...p, [name]: p[name].map((r) => (same(r) ? row : r)) })) };
}

/** What one query shows once an event's objects are in it; undefined when it must be asked for. */
type Put = (key: readonly unknown[], data: unknown) => unknown;

/** Whether what is shown of an app's deployments and what the app says is live are one. */
const liveIsOne = (app: App | undefined, shown: Deployment[]) =>
  app === undefined || shown.every((d) => d.live === (app.live?.number === d.number));

const rows = (list: unknown) => (list as Pages<"deployments", Deployment>).pages.flatMap((p) => p.deployments);

/** Of a deployment: itself, and its rows while nothing but the row changes. */
const deploymentPut =
  (d: Deployment, app: App | undefined): Put =>
  ([, , , of, what, which], data) => {
    if (of !== d.app) return data; // another app's
    if (what === "one") {
      const shown = data as Deployment;
      if (shown.number !== d.number) return liveIsOne(app, [shown]) ? data : undefined;
      return older(d, shown) || !liveIsOne(app, [d]) ? undefined : d;
    }
    if (what === "log end") return which === d.number ? undefined : data;
    // The end of one may change others, and a filter may want it no more.
    if (what !== "list" || ended(d.state) || Object.keys(which as object).length > 0) return undefined;
    const list = data as Pages<"deployments", Deployment>;
    const [first] = list.pages;
    if (rows(list).some((s) => s.number === d.number && older(d, s))) return undefined;
    if (first !== undefined && d.number === (first.deployments[0]?.number ?? d.number) + 1)
      return { ...list, pages: [{ ...first, deployments: [d, ...first.deployments] }, ...list.pages.slice(1)] };
    return withRow(list, "deployments", (s) => s.number === d.number, d);
  };

/** Of an app, for its deployments: they are asked for where they do not say what is live as the app does. */
const livePut =
  (app: App): Put =>
  ([, , , of, what], data) => {
    if (of !== app.id || (what !== "one" && what !== "list")) return data;
    return liveIsOne(app, what === "one" ? [data as Deployment] : rows(data)) ? data : undefined;
  };

/** Of an app: itself, and its rows where they stay in their place. */
const appPut =
  (id: string, app: App): Put =>
  ([, , , what, which], data) => {
    if (what === "one") {
      if (which !== id) return data;
      return olderApp(app, data as App) ? undefined : app;
    }
    const byNeed = which === "by need";
    if (what !== "list" || (which !== undefined && !byNeed)) return undefined;
    const list = data as Pages<"apps", App>;
    const shown = list.pages.flatMap((p) => p.apps).find((a) => a.id === id);
    if (shown === undefined || olderApp(app, shown)) return undefined;
    if (byNeed && (shown.need !== app.need || shown.latest?.number !== app.latest?.number || app.need !== "DEPLOYING"))
      return undefined; // its place, and what is counted
    return withRow(list, "apps", (a) => a.id === id, app);
  };

const webhookPut =
  (id: string, w: Webhook): Put =>
  ([, , , which], data) => {
    if (which === "by health") return undefined;
    if (which !== "list") return which === id ? w : data;
    const list = data as { webhooks: Webhook[] };
    if (!list.webhooks.some((one) => one.id === id)) return undefined;
    return { ...list, webhooks: list.webhooks.map((one) => (one.id === id ? w : one)) };
  };

/** What a change brought, by the kind of what is shown. */
function puts(c: Change): Record<string, Put> {
  switch (c.kind) {
    case "deployment":
      return {
        ...(c.object !== undefined && { deployment: deploymentPut(c.object as Deployment, c.app) }),
        ...(c.app !== undefined && { app: appPut(c.app.id, c.app) }),
      };
    case "app": {
      const app = c.object as App | undefined;
      return app === undefined ? {} : { app: appPut(c.id, app), deployment: livePut(app) };
    }
    case "webhook":
      return c.object === undefined ? {} : { webhook: webhookPut(c.id, c.object as Webhook) };
    case "integration":
      return c.object === undefined ? {} : { integration: (key) => (key.length === 3 ? c.object : undefined) };
    default:
      return {};
  }
}

/** Takes the changes of a workspace, until stopped. */
export function changes(workspace: string, client: QueryClient, stop: AbortSignal): (c: Change) => void {
  const pending = new Map<string, Set<string>>(); // what is old, by kind: its hashes
  let timer: ReturnType<typeof setTimeout> | undefined;
  stop.addEventListener("abort", () => clearTimeout(timer));

  // A burst of events asks once; a page that nobody sees still gets its answer for the title.
  const busy = new Set<string>();
  const flush = () => {
    timer = undefined;
    for (const [kind, old] of Array.from(pending).filter(([k]) => !busy.has(k))) {
      pending.delete(kind);
      busy.add(kind);
      void renew(client, keys.kind(workspace, kind), (q) => old.has(q.queryHash)).finally(() => {
        busy.delete(kind);
        if (pending.has(kind) && !stop.aborted) timer ??= setTimeout(flush, pause);
      });
    }
  };

  /** Puts what was brought into a query; false when it must be asked for. */
  const putInto = (q: Query, put: Put | undefined): boolean => {
    // What is being asked for may be from before: it would come over what is put.
    if (put === undefined || q.state.data === undefined || q.state.fetchStatus !== "idle") return false;
    const next = put(q.queryKey, q.state.data);
    if (next === undefined) return false;
    if (next !== q.state.data) client.setQueryData(q.queryKey, next);
    return true;
  };

  return (c) => {
    if (stop.aborted) return;
    const brought = c.kind === "app" && isGoing(workspace, c.id) ? {} : puts(c);
    for (const kind of new Set([c.kind, ...(concerns[c.kind] ?? []), "activity", ...Object.keys(brought)])) {
      for (const q of client.getQueryCache().findAll({ queryKey: keys.kind(workspace, kind) })) {
        if (putInto(q, brought[kind])) continue;
        const old = pending.get(kind) ?? new Set();
        pending.set(kind, old.add(q.queryHash));
      }
    }
    if (c.kind === "workspace" || c.kind === "members") void client.invalidateQueries({ queryKey: ["me"] });
    timer ??= setTimeout(flush, pause);
  };
}
