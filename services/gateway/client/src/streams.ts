import { wait, type Devpilot } from "./client.js";
import { backoff, DevpilotError, NoAnswerError } from "./problem.js";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];
type EventsQuery = NonNullable<paths["/v1/workspaces/{workspace}/events"]["get"]["parameters"]["query"]>;
type LogRecord = Schemas["LogRecord"];

export interface LogOf {
  workspace: string;
  app: string;
  number: number;
  /** Only lines after this one. */
  after?: number;
  signal?: AbortSignal;
  /** Told when the log is being read, and again after each interruption. */
  opened?: () => void;
  /** Told of each interruption, with what is known of it; the log goes on by itself. */
  interrupted?: (why: unknown) => void;
}

/**
 * Follows a deployment's log until the deployment ends: every line once, in order, however often the
 * connection breaks. What the generator returns says how the deployment stands.
 */
export async function* followLog(d: Devpilot, of: LogOf): AsyncGenerator<LogRecord, Schemas["LogEnd"]> {
  const path = `/v1/workspaces/${encodeURIComponent(of.workspace)}/apps/${encodeURIComponent(of.app)}/deployments/${of.number}/log`;
  let after = of.after ?? 0;
  for (let failures = 0; ;) {
    let why: unknown;
    try {
      const response = await d.open(`${path}?follow=true&after=${after}`, {
        headers: { Accept: "application/x-ndjson" },
        ...(of.signal && { signal: of.signal }),
      });
      of.opened?.();
      for await (const text of lines(response)) {
        if (text === "") continue;
        const line = JSON.parse(text) as Schemas["LogLine"];
        if ("end" in line) return line.end;
        if ("error" in line) throw new DevpilotError(line.error);
        if ("heartbeat" in line) continue;
        failures = 0;
        if (line.line <= after) continue;
        after = line.line;
        yield line;
      }
    } catch (e) {
      giveUp(e, of.signal);
      why = e;
    }
    of.interrupted?.(why);
    await wait(backoff(failures++), of.signal);
  }
}

export interface EventsOf {
  workspace: string;
  /** Go on after this event. */
  lastEventId?: string;
  /** Only changes of these kinds; of all when absent. */
  kinds?: NonNullable<EventsQuery["kind"]>;
  /** Only changes of this app and its deployments. */
  app?: string;
  /**
   * What changes bring along: `object` is what changed, as GET answers it, `app` of a deployment its app as well. An
   * event that could not bring it in time comes without: look yourself.
   */
  include?: NonNullable<EventsQuery["include"]>;
  signal?: AbortSignal;
}

/**
 * Follows what changes in a workspace, and goes on after the last event when the connection breaks.
 * After `reset` something was missed: load everything again. `end` is the last: the session ended.
 */
export async function* followEvents(d: Devpilot, of: EventsOf): AsyncGenerator<Schemas["WorkspaceEvent"], void> {
  let last = of.lastEventId;
  const query = new URLSearchParams([
    ...(of.kinds ?? []).map((kind) => ["kind", kind]),
    ...(of.app === undefined ? [] : [["app", of.app]]),
    ...(of.include ?? []).map((what) => ["include", what]),
  ]);
  const path = `/v1/workspaces/${encodeURIComponent(of.workspace)}/events${query.size === 0 ? "" : `?${query}`}`;
  for (let failures = 0; ;) {
    try {
      const response = await d.open(path, {
        headers: { Accept: "text/event-stream", ...(last !== undefined && { "Last-Event-ID": last }) },
        ...(of.signal && { signal: of.signal }),
      });
      for await (const event of events(response)) {
        failures = 0;
        last = event.id ?? last;
        yield event;
        if (event.event === "end") return;
      }
    } catch (e) {
      giveUp(e, of.signal);
    }
    await wait(backoff(failures++), of.signal);
  }
}

/** Throws what going on cannot mend: a stop that was asked for, or a refusal that stays. */
function giveUp(e: unknown, signal: AbortSignal | undefined): void {
  if (signal?.aborted || (e instanceof DevpilotError && e.pause(0) === undefined)) throw e;
  if (e instanceof DevpilotError || e instanceof NoAnswerError) return;
  if (!(e instanceof TypeError) && !(e instanceof SyntaxError)) throw e;
}

/** The events of a text/event-stream, as far as Devpilot writes it: one line of data each. */
async function* events(response: Response): AsyncGenerator<Schemas["WorkspaceEvent"]> {
  let fields: Record<string, string> = {};
  for await (const line of lines(response)) {
    if (line === "") {
      if (fields["event"] !== undefined && fields["data"] !== undefined)
        yield { ...fields, data: JSON.parse(fields["data"]) as unknown } as Schemas["WorkspaceEvent"];
      fields = {};
      continue;
    }
    const [, name = "", value = ""] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
    if (name !== "") fields[name] = value;
  }
}

/** The lines of a body; what stands behind the last line break was cut, and is left out. */
async function* lines(response: Response): AsyncGenerator<string> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) yield part.replace(/\r$/, "");
    }
  } finally {
    await reader.cancel().catch(() => undefined); // whoever reads no further lets the connection go
  }
}
