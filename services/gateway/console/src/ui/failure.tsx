import { Link } from "react-router";
import type { App, Deployment } from "../api/client";
import { fragment } from "../lib/log";
import { knownReason, remedyFor } from "../lib/remedy";
import { ansi, shortHash, subject } from "../lib/text";
import { failedHook, stageName } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Said, Skeleton, Text } from "./basics";
import { RollbackPrevious } from "./rollback";
import type { LogState } from "./use-log";
import { Icon } from "./icons";

const shown = 10;
/** How many lines Devpilot itself adds to a hook's at most. */
const spoken = 4;

/** Why a deployment failed: the step, its message, its last lines, what to try, and what is live meanwhile. */
export function Failure({ d, app, log }: { d: Deployment; app: App | undefined; log: LogState }) {
  const { ws } = usePlace();
  const failed = failedHook(d);
  // That a hook ended with its exit code is the heading; what is said beyond it follows.
  const own = failed?.hook.message ?? "";
  const more = /^it ended with exit code \d+\.?$/i.test(own) ? "" : own;
  const said =
    failed?.hook.exitCode === undefined
      ? (d.error?.message ?? "")
      : (d.error?.message ?? "").replace(/^Hook "[^"]*"(?: of [A-Z_]+)? failed: it ended with exit code \d+\.\s*/, "");
  const remedy = remedyFor(d.error?.reason);
  // A hook's own lines; else those of the stage it ended in; else the log's.
  // What Devpilot says around a hook stands in the heading.
  const last = log.lines.tail(shown + spoken, failed?.stage ?? d.stage, failed?.hook.name);
  const printed = failed === undefined ? [] : last.filter((r) => r.stream !== "SYSTEM");
  const tail = (printed.length > 0 ? printed : last).slice(-shown);
  const lines = { from: tail[0]?.line ?? 0, to: tail.at(-1)?.line ?? 0 };
  return (
    <section className="failure" aria-labelledby="failure">
      <h2 id="failure">
        <Icon name="failed" />
        {failed === undefined ? (
          <>Failed at: {stageName(d.stage)}</>
        ) : (
          <>
            Deployment hook “<Text>{failed.hook.name}</Text>”{" "}
            {failed.hook.state === "TIMED_OUT" ? "ran out of time" : "failed"}
            {failed.hook.exitCode !== undefined && ` with exit code ${failed.hook.exitCode}`}, at:{" "}
            {stageName(failed.stage)}
          </>
        )}
      </h2>
      {said !== "" && (
        <p>
          <Said>{said}</Said>
          {more !== "" && !said.toLowerCase().includes(more.toLowerCase().replace(/\.$/, "")) && (
            <>
              {" "}
              <Said>{more}</Said>
            </>
          )}
        </p>
      )}
      {tail.length > 0 ? (
        <>
          <p className="soft">
            {tail.length === 1 ? "Its last line" : `Its last ${tail.length} lines`},{" "}
            <Link to={{ hash: fragment(lines) }} replace preventScrollReset>
              shown in the log
            </Link>
            :
          </p>
          <pre aria-label="Last lines of the failed step">
            {tail.map((r) => (
              <bdi key={r.line}>
                {ansi(r.text).map((s, i) =>
                  s.classes === "" ? (
                    s.text
                  ) : (
                    <span key={i} className={s.classes}>
                      {s.text}
                    </span>
                  ),
                )}
                {"\n"}
              </bdi>
            ))}
          </pre>
        </>
      ) : (
        !log.opened && <Skeleton rows={2} />
      )}
      <p>
        <strong>What to try:</strong>{" "}
        {knownReason(d.error?.reason) ? remedy.text : "Read the log; then push a fix, or press Deploy latest."}{" "}
        {remedy.action !== undefined && <Link to={remedy.action.to(ws)}>{remedy.action.label}</Link>}
      </p>
      {d.live ? (
        <RollbackPrevious d={d} app={app} />
      ) : (
        app?.live !== undefined && (
          <p>
            <strong>Live meanwhile:</strong>{" "}
            <Link to={`/w/${ws}/apps/${d.app}/deployments/${app.live.number}`}>#{app.live.number}</Link>{" "}
            <code>{shortHash(app.live.commit?.hash)}</code> <Text>{subject(app.live.commit?.message)}</Text>
          </p>
        )
      )}
    </section>
  );
}
