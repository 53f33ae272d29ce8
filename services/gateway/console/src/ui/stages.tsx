import { Link } from "react-router";
import type { Deployment, HookRecord } from "../api/client";
import { fragment, type Span } from "../lib/log";
import { ended, hookLook, notNeeded, stageName, stages } from "../lib/words";
import { Text, Took } from "./basics";
import type { LogState } from "./use-log";
import { Icon } from "./icons";

/** The stages with their durations, passed, running, not begun; under each its deployment hooks. Those that have nothing to do are folded. */
export function Rail({ d, log }: { d: Deployment; log: LogState }) {
  const told = stages.filter(([id]) => tells(d, id));
  const rest = stages.filter(([id]) => !tells(d, id));
  return (
    <div className="rail">
      <ol aria-label="Stages">
        {told.map(([id]) => (
          <Stage key={id} d={d} log={log} id={id} />
        ))}
      </ol>
      {rest.length > 0 && (
        <details>
          <summary>{rest.length === 1 ? "1 stage without hooks" : `${rest.length} stages without hooks`}</summary>
          <ol aria-label="Stages without hooks">
            {rest.map(([id]) => (
              <Stage key={id} d={d} log={log} id={id} />
            ))}
          </ol>
        </details>
      )}
    </div>
  );
}

/** Whether a stage has something to tell: it does something by itself, has hooks, or is where the deployment is or ended. */
function tells(d: Deployment, id: string): boolean {
  if (id === "SOURCE_CONTROL" || id === "RELEASE") return true;
  if ((d.stages.find((s) => s.stage === id)?.hooks.length ?? 0) > 0) return true;
  return d.stage === id && d.state !== "COMPLETED" && d.state !== "PENDING";
}

type StageState = "failed" | "stopped" | "done" | "none" | "running";

function stageState(d: Deployment, id: string): StageState {
  const record = d.stages.find((s) => s.stage === id);
  const here = d.stage === id;
  if (here && d.state === "FAILED") return "failed";
  if (here && d.state === "CANCELLED" && record !== undefined) return "stopped";
  if (record?.endTime !== undefined) return "done";
  if (record === undefined || d.state === "PENDING") return "none";
  return ended(d.state) ? "stopped" : "running";
}

/** The word for a stage that did not begin. */
function unbegun(d: Deployment, id: string): string {
  if (notNeeded(d, id)) return "not needed";
  if (!ended(d.state)) return "not begun";
  return d.state === "CANCELLED" ? "stopped" : "not reached";
}

const tones = { failed: "bad", done: "good", running: "busy", stopped: "idle", none: "idle" } as const;

function Stage({ d, log, id }: { d: Deployment; log: LogState; id: string }) {
  const over = ended(d.state);
  const record = d.stages.find((s) => s.stage === id);
  const state = stageState(d, id);
  const word = state === "none" ? unbegun(d, id) : state;
  return (
    <li>
      <div className={`stage tone-${tones[state]}`} aria-current={state === "running" ? "step" : undefined}>
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
