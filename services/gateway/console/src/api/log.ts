import { DevpilotError, followLog } from "@devpilot/client";
import type { LogRecord } from "../lib/log";
import { api } from "./client";

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

const interruption = "The connection was interrupted; the log goes on from the same line.";
const told = (why: unknown) => (why instanceof DevpilotError ? why.message : interruption);

const pause = (n: number) => Math.min(1000 * 2 ** n, 15_000);

/**
 * Follows a deployment's log until its end. The client resumes where a connection broke. Where it gives up, or a line
 * is missing, reading begins again after the last line that is here: a session may be there again, or another tab gone.
 */
export function readLog(workspace: string, app: string, number: number, reader: LogReader): () => void {
  const stop = new AbortController();
  const { signal } = stop;
  let failures = 0;

  /** Reads until the end, and says what is to be told where that was not reached. */
  const read = async (): Promise<string | undefined> => {
    const log = followLog(api, {
      ...{ workspace, app, number, signal },
      after: reader.after(),
      opened: () => reader.open(),
      interrupted: (why) => reader.trouble(told(why)),
    });
    for (;;) {
      const { done, value } = await log.next();
      if (signal.aborted) return undefined;
      if (done) {
        reader.end(value.state);
        return undefined;
      }
      if (reader.record(value)) {
        failures = 0;
        continue;
      }
      await log.return({ state: "PROCESSING" }); // lets the connection go
      return "A line was missed; the log is being read again from there.";
    }
  };
  const go = async () => {
    for (;;) {
      const trouble = await read().catch(told);
      if (trouble === undefined || signal.aborted) return;
      reader.trouble(trouble);
      await new Promise((r) => setTimeout(r, pause(failures++)));
      if (signal.aborted) return;
    }
  };
  void go();
  return () => stop.abort();
}
