import { useEffect, useState } from "react";
import { readLog } from "../api/log";
import { LogBuffer, type LogLines } from "../lib/log";

export interface LogState {
  lines: LogLines;
  end: string | undefined;
  trouble: string | undefined;
  opened: boolean;
}

const nothing = new LogBuffer().snapshot();

/** Reads the log until its end; survives a broken connection without losing or repeating a line. */
export function useLog(ws: string, app: string, number: number): LogState {
  const [view, setLogState] = useState<LogState>({ lines: nothing, end: undefined, trouble: undefined, opened: false });
  useEffect(() => {
    const buffer = new LogBuffer();
    let frame: number | undefined;
    // Thousands of lines a second make one render a frame.
    const show = () => {
      frame ??= requestAnimationFrame(() => {
        frame = undefined;
        setLogState((v) => ({ ...v, lines: buffer.snapshot(), opened: true }));
      });
    };
    const stop = readLog(ws, app, number, {
      after: () => buffer.last,
      record: (r) => {
        const taken = buffer.add(r);
        if (taken === "new") show();
        return taken !== "gap";
      },
      open: () => setLogState((v) => ({ ...v, opened: true, trouble: undefined })),
      end: (state) =>
        setLogState((v) => ({ ...v, lines: buffer.snapshot(), end: state, opened: true, trouble: undefined })),
      trouble: (text) => setLogState((v) => ({ ...v, trouble: text })),
    });
    return () => {
      stop();
      if (frame !== undefined) cancelAnimationFrame(frame);
    };
  }, [ws, app, number]);
  return view;
}
