import { Link } from "react-router";
import type { Deployment, HookRecord } from "../api/client";
import { fragment, type Span } from "../lib/log";
import { ended, hookLook, notNeeded, stageName, stages } from "../lib/words";
import { Text, Took } from "./basics";
import type { LogState } from "./use-log";
import { Icon } from "./icons";

/** The stages with their durations, passed, running, not begun; under each its deployment hooks. */
export function Rail({ d, log }: { d: Deployment; log: LogState }) {
  const over = ended(d.state);
  return (
    <ol className="rail" aria-label="Stages">
      {stages.map(([id]) => {
        const record = d.stages.find((s) => s.stage === id);
        const here = d.stage === id;
        const state =
          here && d.state === "FAILED"
            ? "failed"
            : here && d.state === "CANCELLED" && record !== undefined
              ? "stopped"
              : record?.endTime !== undefined
                ? "done"
                : record === undefined || d.state === "PENDING"
                  ? "none"
                  : over
                    ? "stopped"
                    : "running";
        const word = {
          failed: "failed",
          done: "done",
          running: "running",
          stopped: "stopped",
          none: notNeeded(d, id)
            ? "not needed"
            : !over
              ? "not begun"
              : d.state === "CANCELLED"
                ? "stopped"
                : "not reached",
        }[state];
        const tone = { failed: "bad", done: "good", running: "busy", stopped: "idle", none: "idle" }[state];
        return (
          <li key={id}>
            <div className={`stage tone-${tone}`} aria-current={state === "running" ? "step" : undefined}>
              <Icon name={state} />
              <span className="stage-name">{stageName(id)}</span>
              <span className="soft stage-time">
                <span className={word === "stopped" || word === "not needed" ? undefined : "hidden"}>{word} </span>
                {record !== undefined && state !== "none" && (
                  <Took start={record.startTime} end={record.endTime ?? (over ? d.endTime : undefined)} />
                )}
              </span>
            </div>
            {record !== undefined && record.hooks.length > 0 && (
              <ul className="rail-hooks" aria-label={`Deployment hooks: ${stageName(id)}`}>
                {record.hooks.map((h) => (
                  <Hook key={h.name} hook={h} lines={log.lines.span(id, h.name)} end={over ? d.endTime : undefined} />
                ))}
              </ul>
            )}
          </li>
        );
      })}
    </ol>
  );
}

/** A deployment hook: a click leads to its lines in the log. */
function Hook({ hook: h, lines, end }: { hook: HookRecord; lines: Span | undefined; end: string | undefined }) {
  const look = hookLook(h.state);
  return (
    <li className={`stage tone-${look.tone}`} aria-current={h.state === "RUNNING" ? "step" : undefined}>
      <Icon name={look.mark} />
      <span className="stage-name">
        {lines === undefined ? (
          <Text>{h.name}</Text>
        ) : (
          <Link to={{ hash: fragment(lines) }} replace preventScrollReset title="Show its lines in the log">
            <Text>{h.name}</Text>
          </Link>
        )}
        <span className="hidden"> {look.word}</span>
        {h.exitCode !== undefined && h.exitCode !== 0 && <span className="tone-bad"> exit {h.exitCode}</span>}
        {h.state === "TIMED_OUT" && <span className="tone-bad"> ran out of time</span>}
        {h.state === "SKIPPED" && <span className="soft"> skipped</span>}
      </span>
      <span className="soft stage-time">
        <Took start={h.startTime} end={h.endTime ?? end} />
      </span>
    </li>
  );
}
