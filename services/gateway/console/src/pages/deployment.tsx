import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "react-router";
import type { Deployment } from "../api/client";
import { deploymentQuery } from "../api/queries";
import { knownReason, remedyFor } from "../lib/remedy";
import { httpUrl, safe, shortHash, subject } from "../lib/text";
import { deploymentLook, ended, stageName, stages, triggerText } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Banner, Failed, PageTitle, Skeleton, Status, Text, Time, Took, Upcoming, useTitle } from "../ui/basics";
import { LogView } from "../ui/log-view";

export default function DeploymentPage() {
  const { ws } = usePlace();
  const { app = "", number = "" } = useParams();
  const n = Number(number);
  const deployment = useQuery({ ...deploymentQuery(ws, app, n), enabled: Number.isInteger(n) && n > 0 });
  const d = deployment.data;
  useTitle(d === undefined ? `#${number} ${app}` : `${deploymentLook(d.state).mark} #${number} ${app}`);
  return (
    <>
      <PageTitle>
        <Link to={`/w/${ws}/apps`} className="crumb">
          Apps
        </Link>
        <span className="crumb-sep" aria-hidden="true">
          {" "}
          ›{" "}
        </span>
        <Link to={`/w/${ws}/apps/${app}`} className="crumb">
          {app}
        </Link>
        <span className="crumb-sep" aria-hidden="true">
          {" "}
          ›{" "}
        </span>
        #{number}
      </PageTitle>
      {d === undefined ? (
        deployment.isError || !(n > 0) ? (
          <Failed error={deployment.error ?? new Error("A deployment's number is 1, 2, 3 …")} workspace={ws} retry={() => void deployment.refetch()} />
        ) : (
          <Skeleton rows={8} />
        )
      ) : (
        <>
          {deployment.isError && <Failed error={deployment.error} title="The state could not be brought up to date." retry={() => void deployment.refetch()} />}
          <Head d={d} />
          <div className="deployment">
            <Rail d={d} />
            <LogView key={`${ws}/${app}/${n}`} ws={ws} app={app} number={n} over={ended(d.state)} />
          </div>
        </>
      )}
    </>
  );
}

function Head({ d }: { d: Deployment }) {
  const { ws, me } = usePlace();
  const url = httpUrl(d.commit?.url);
  const hash = <code>{shortHash(d.commit?.hash)}</code>;
  const remedy = remedyFor(d.error?.reason);
  return (
    <>
      <p className="subline" aria-live="polite">
        <Status look={deploymentLook(d.state)} />
        {d.live && <span className="tag live">live</span>}
        {d.state === "PROCESSING" && <span className="soft num"> {d.progressPercent} %</span>}
        {d.state === "SUPERSEDED" && d.supersededBy > 0 && (
          <>
            {" "}
            by <Link to={`/w/${ws}/apps/${d.app}/deployments/${d.supersededBy}`}>#{d.supersededBy}</Link>, a newer push
          </>
        )}
      </p>
      <p className="subline">
        {d.commit === undefined ? (
          <span className="soft">The commit is fixed when the deployment starts.</span>
        ) : (
          <>
            {url === undefined ? (
              hash
            ) : (
              <a href={url} target="_blank" rel="noreferrer">
                {hash}
                <span className="hidden"> on Bitbucket</span>
              </a>
            )}{" "}
            <strong>
              <Text>{subject(d.commit.message)}</Text>
            </strong>{" "}
            <span className="soft">
              by <Text>{d.commit.authorName}</Text> on <Text>{d.branch}</Text>
            </span>
          </>
        )}
      </p>
      <p className="subline soft">
        <Text>{triggerText(d, me.label)}</Text> · <Time at={d.createTime} />
        {d.startTime !== undefined && (
          <>
            {" · "}
            {ended(d.state) ? "took " : "running for "}
            <Took start={d.startTime} end={d.endTime} />
          </>
        )}
        {d.attempt > 1 && ` · attempt ${d.attempt}`}
        {d.requestedCommit !== undefined && d.requestedCommit.hash !== d.commit?.hash && (
          <>
            {" · asked for "}
            <code>{shortHash(d.requestedCommit.hash)}</code>; the branch had moved on
          </>
        )}
      </p>
      {d.state === "PENDING" && d.waitingFor !== undefined && (
        <Banner tone="warn" title="It waits.">
          <Text>{d.waitingFor.message}</Text>
          {d.retryTime !== undefined && (
            <>
              {" "}
              Next try <Upcoming at={d.retryTime} />.
            </>
          )}
        </Banner>
      )}
      {d.error !== undefined && (
        <Banner
          tone="bad"
          title={safe(d.error.message)}
          actions={
            remedy.action !== undefined && (
              <Link className="button plain" to={remedy.action.to(ws)}>
                {remedy.action.label}
              </Link>
            )
          }
        >
          {knownReason(d.error.reason) && <span>{remedy.text}</span>}
        </Banner>
      )}
    </>
  );
}

/** The stages with their durations: passed, running, not begun. */
function Rail({ d }: { d: Deployment }) {
  const over = ended(d.state);
  return (
    <ol className="rail" aria-label="Stages">
      {stages.map(([id]) => {
        const record = d.stages.find((s) => s.stage === id);
        const current = d.stage === id;
        const failed = current && d.state === "FAILED";
        const state = failed ? "failed" : record?.endTime !== undefined ? "done" : record !== undefined && !over ? "running" : record !== undefined ? "stopped" : "none";
        const mark = { failed: "✕", done: "✓", running: "◐", stopped: "⊘", none: "○" }[state];
        const word = { failed: "failed", done: "done", running: "running", stopped: "stopped", none: over ? "not reached" : "not begun" }[state];
        const tone = { failed: "bad", done: "good", running: "busy", stopped: "idle", none: "idle" }[state];
        return (
          <li key={id} className={`stage tone-${tone}`} aria-current={state === "running" ? "step" : undefined}>
            <span className="mark" aria-hidden="true">
              {mark}
            </span>
            <span className="stage-name">{stageName(id)}</span>
            <span className="soft stage-time">
              <span className="hidden">{word} </span>
              {record !== undefined && <Took start={record.startTime} end={record.endTime ?? (over ? d.endTime : undefined)} />}
            </span>
          </li>
        );
      })}
    </ol>
  );
}
