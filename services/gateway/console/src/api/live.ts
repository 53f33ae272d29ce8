// Live pages: one stream of change events a browser and workspace. The tab that holds the lock reads
// it and tells the others; when it closes, the next one takes over. What a change brings along is put
// in place, the rest is asked for again (changes.ts). Where the browser has no locks (plain http on
// another host), each tab reads for itself.
import { useSyncExternalStore } from "react";
import type { QueryClient } from "@tanstack/react-query";
import { asApiError } from "./client";
import { sessionLives } from "../lib/signed-out";
import type { Change } from "./changes";
import { keys } from "./queries";

type Message =
  { type: "change"; change: Change } | { type: "reset" } | { type: "end" } | { type: "state"; connected: boolean };

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
  const reset = () => void client.invalidateQueries({ queryKey: keys.workspace(workspace) });
  // Loaded when it is wanted: the first page is there without it.
  let changes: Promise<(c: Change) => void> | undefined;
  const take = (m: Message) => {
    switch (m.type) {
      case "change":
        changes ??= import("./changes").then((m) => m.changes(workspace, client, stop.signal));
        changes
          .then((put) => put(m.change))
          .catch(() => {
            changes = undefined; // it did not come: look at everything
            reset();
          });
        break;
      case "reset":
        reset();
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
  };
}

/** Reads the stream, and opens it again when the browser gave up, until told to stop. */
async function read(workspace: string, after: string, signal: AbortSignal, tell: (m: Message) => void): Promise<void> {
  let last = after;
  let opened = after !== "";
  while (!signal.aborted) {
    await new Promise<void>((resolve) => {
      const from = last === "" ? "" : `&lastEventId=${last}`;
      const source = new EventSource(
        `/v1/workspaces/${encodeURIComponent(workspace)}/events?include=object&include=app${from}`,
      );
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
        tell({ type: "change", change: JSON.parse(e.data as string) as Change });
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
