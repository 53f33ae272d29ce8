import type { LogRecord } from "../lib/log";

export interface LogReader {
  /** The last line that is here. */
  after: () => number;
  /** Takes a line; false asks for what is missing before it. */
  record: (r: LogRecord) => boolean;
  open: () => void;
  end: (state: string) => void;
  /** Something to tell; the reader goes on. */
  trouble: (text: string) => void;
}

const pause = (n: number) => Math.min(1000 * 2 ** n, 15_000);

/**
 * Follows a deployment's log. The browser resumes a broken connection by Last-Event-ID; where it gave
 * up (an answer that is no stream), a new connection begins after the last line that is here.
 */
export function readLog(ws: string, app: string, number: number, reader: LogReader): () => void {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let stopped = false;

  const again = (text: string) => {
    source?.close();
    if (stopped) return;
    reader.trouble(text);
    clearTimeout(timer);
    timer = setTimeout(open, pause(failures++));
  };
  const open = () => {
    if (stopped) return;
    const path = `/v1/workspaces/${encodeURIComponent(ws)}/apps/${encodeURIComponent(app)}/deployments/${number}/log`;
    const s = new EventSource(
      `${path}?${new URLSearchParams({ follow: "true", format: "sse", after: String(reader.after()) })}`,
    );
    source = s;
    s.onopen = () => reader.open();
    s.addEventListener("record", (e) => {
      failures = 0;
      if (!reader.record(JSON.parse(e.data as string) as LogRecord))
        again("A line was missed; the log is being read again from there.");
    });
    s.addEventListener("end", (e) => {
      s.close();
      const { end } = JSON.parse(e.data as string) as { end: { state?: string } };
      reader.end(end.state ?? "");
    });
    s.addEventListener("problem", (e) => {
      const { error } = JSON.parse(e.data as string) as { error: { detail?: string } };
      again(error.detail ?? "The log was cut; it is being read again from there.");
    });
    s.onerror = () => {
      if (s.readyState === EventSource.CLOSED) again("The log cannot be read now; Devpilot is asked again.");
      else reader.trouble("The connection was interrupted; the log goes on from the same line.");
    };
  };
  open();
  return () => {
    stopped = true;
    clearTimeout(timer);
    source?.close();
  };
}
