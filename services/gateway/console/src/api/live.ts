// Live pages: one stream of change events a browser and workspace. The tab that holds the lock reads
// it and tells the others; when it closes, the next one takes over. What an event says is only "look
// again". Where the browser has no locks (plain http on another host), each tab reads for itself.
import { useSyncExternalStore } from "react";
import type { QueryClient } from "@tanstack/react-query";
import { asApiError } from "./client";
import { sessionLives } from "../lib/signed-out";
import { keys } from "./queries";

type Message =
  { type: "change"; kind: string } | { type: "reset" } | { type: "end" } | { type: "state"; connected: boolean };

let connected = true;
const watchers = new Set<() => void>();

function setConnected(value: boolean): void {
  if (connected === value) return;
  connected = value;
  for (const w of watchers) w();
}

/** Whether pages are live. Short interruptions are not told. */
export function useConnected(): boolean {
  return useSyncExternalStore(
    (w) => {
      watchers.add(w);
      return () => watchers.delete(w);
    },
    () => connected,
  );
}

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
async function renew(client: QueryClient, queryKey: readonly unknown[]): Promise<void> {
  const inTime = (what: Promise<unknown>) =>
    Promise.race([what.catch(() => undefined), new Promise((r) => setTimeout(r, patience))]);
  const under = new Set(client.getQueryCache().findAll({ queryKey, fetchStatus: "fetching" }));
  const others = client.invalidateQueries({ queryKey, predicate: (q) => !under.has(q) });
  await inTime(Promise.allSettled([others, ...Array.from(under, (q) => q.promise)]));
  if (under.size > 0) await inTime(client.invalidateQueries({ queryKey, predicate: (q) => under.has(q) }));
}

/** Whether a question failed for want of an answer, not because it was refused. */
function unanswered(error: unknown): boolean {
  if (error === null) return false;
  const { status } = asApiError(error);
  return status === 0 || status >= 500;
}

/**
 * Follows a workspace until the returned function is called. What is shown was read after the event `after`;
 * where that is not known, it is read again once the stream is there.
 */
export function follow(workspace: string, client: QueryClient, after = ""): () => void {
  const stop = new AbortController();
  const channel = new BroadcastChannel(`devpilot-events:${workspace}`);
  const pending = new Set<string>();
  let timer: ReturnType<typeof setTimeout> | undefined;

  // A burst of events asks once; a page that nobody sees still gets its answer for the title.
  const busy = new Set<string>();
  const flush = () => {
    timer = undefined;
    for (const kind of Array.from(pending).filter((k) => !busy.has(k))) {
      pending.delete(kind);
      busy.add(kind);
      void renew(client, keys.kind(workspace, kind)).finally(() => {
        busy.delete(kind);
        if (pending.has(kind) && !stop.signal.aborted) timer ??= setTimeout(flush, pause);
      });
    }
  };
  const take = (m: Message) => {
    switch (m.type) {
      case "change":
        for (const kind of [m.kind, ...(concerns[m.kind] ?? []), "activity"]) pending.add(kind);
        if (m.kind === "workspace" || m.kind === "members") void client.invalidateQueries({ queryKey: ["me"] });
        timer ??= setTimeout(flush, pause);
        break;
      case "reset":
        void client.invalidateQueries({ queryKey: keys.workspace(workspace) });
        break;
      case "end":
        void client.invalidateQueries({ queryKey: ["me"] });
        break;
      case "state":
        setConnected(m.connected);
        // What could not be had while Devpilot was away.
        if (m.connected) void client.refetchQueries({ type: "active", predicate: (q) => unanswered(q.state.error) });
        // Signed in again elsewhere: what this page shows is from before.
        if (m.connected && sessionLives()) void client.invalidateQueries();
    }
  };
  channel.onmessage = (e: MessageEvent<Message>) => take(e.data);
  const tell = (m: Message) => {
    take(m);
    channel.postMessage(m);
  };

  const lead = () => read(workspace, after, stop.signal, tell);
  if (navigator.locks === undefined) {
    void lead();
  } else {
    navigator.locks.request(`devpilot-events:${workspace}`, { signal: stop.signal }, lead).catch((e: unknown) => {
      if (!stop.signal.aborted) throw e;
    });
  }
  return () => {
    stop.abort();
    channel.close();
    clearTimeout(timer);
  };
}

/** Reads the stream, and opens it again when the browser gave up, until told to stop. */
async function read(workspace: string, after: string, signal: AbortSignal, tell: (m: Message) => void): Promise<void> {
  let last = after;
  let opened = after !== "";
  while (!signal.aborted) {
    await new Promise<void>((resolve) => {
      const query = last === "" ? "" : `?${new URLSearchParams({ lastEventId: last })}`;
      const source = new EventSource(`/v1/workspaces/${encodeURIComponent(workspace)}/events${query}`);
      let lost: ReturnType<typeof setTimeout> | undefined;
      const close = () => {
        source.close();
        clearTimeout(lost);
        resolve();
      };
      const note = (e: MessageEvent) => {
        if (e.lastEventId !== "") last = e.lastEventId;
      };
      signal.addEventListener("abort", close, { once: true });
      source.onopen = () => {
        clearTimeout(lost);
        lost = undefined;
        tell({ type: "state", connected: true });
      };
      source.addEventListener("ready", (e) => {
        note(e);
        // A first connection may have come after the first answers: look again once.
        if (!opened) tell({ type: "reset" });
        opened = true;
      });
      source.addEventListener("reset", (e) => {
        note(e);
        tell({ type: "reset" });
      });
      source.addEventListener("change", (e) => {
        note(e);
        const change = JSON.parse(e.data as string) as { kind: string };
        tell({ type: "change", kind: change.kind });
      });
      source.addEventListener("end", () => {
        tell({ type: "end" });
        close();
      });
      source.onerror = () => {
        lost ??= setTimeout(() => tell({ type: "state", connected: false }), 5000);
        if (source.readyState === EventSource.CLOSED) {
          tell({ type: "end" }); // a refused session is found out by asking who we are
          setTimeout(close, 5000);
        }
      };
    });
    if (!signal.aborted) await new Promise((r) => setTimeout(r, 1000));
  }
}
