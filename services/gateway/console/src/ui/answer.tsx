import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import type { App, DeploymentSummary } from "../api/client";
import { deploymentQuery, logEndQuery } from "../api/queries";
import { httpUrl, shortHash, subject } from "../lib/text";
import {
  appLook,
  asYou,
  deploymentLook,
  ended,
  failureText,
  liveLook,
  aheadText,
  syncLook,
  triggerText,
  watched,
  workStart,
} from "../lib/words";
import { whyPath } from "../lib/why";
import { useMyLabel, usePlace } from "../lib/workspace";
import { Button, Failed, Said, Status, Text, Time, Took } from "./basics";
import { useRedeploy } from "./deploy-latest";
import { Icon } from "./icons";
import { RollbackPrevious } from "./rollback";

/** What is, why, and what to do: the newest deployment where it is another, then what is live, then the branch. */
export function Answer({ app }: { app: App }) {
  const { live, latest } = app;
  return (
    <section className={`standing tone-${appLook(app).tone}`} aria-label="How it stands">
      {latest !== undefined && latest.number !== live?.number && <Newest app={app} latest={latest} />}
      {live === undefined ? <NothingLive app={app} /> : <Live app={app} d={live} />}
      <Branch app={app} />
    </section>
  );
}

function NothingLive({ app }: { app: App }) {
  return (
    <div className="headline">
      <div>
        <h2>Nothing is live yet</h2>
        <p>
          {app.latest === undefined
            ? `Press Deploy latest, or push to ${watched(app.branch)}.`
            : "The first deployment that completes goes live."}
        </p>
      </div>
    </div>
  );
}

/** How the branch stands to what is live: said where the newest deployment does not say it already. */
function Branch({ app }: { app: App }) {
  const { ws } = usePlace();
  const myLabel = useMyLabel();
  const { sync, latest, live } = app;
  if (sync === undefined) return null;
  const commit = shortHash(sync.commit);
  // The service's sentence may name the branch's commit itself.
  const named = commit !== "" && !(sync.state !== "IN_SYNC" && sync.message.includes(`is at ${commit}`));
  const said = sync.deployment !== undefined && sync.deployment === latest?.number && latest.number !== live?.number;
  const ahead = sync.branch === undefined ? "" : aheadText(sync);
  const placed = sync.branch !== undefined && (named || said);
  return (
    <p className="sync" aria-label="How the branch stands">
      {/* What the newest deployment says above is not said again. */}
      {said ? (
        <Icon name="branch" />
      ) : (
        <Status look={live === undefined && latest === undefined ? appLook(app) : syncLook(sync)} />
      )}{" "}
      {placed && (
        <>
          <Text>{sync.branch}</Text> is at <code>{commit}</code>
          {ahead !== "" && `, ${ahead}`}
        </>
      )}
      {!said && sync.state !== "IN_SYNC" && (
        <>
          {sync.branch !== undefined && named && ": "}
          <Said>{asYou(sync.message, myLabel)}</Said>
          {ahead !== "" && !placed && ` (${ahead})`}
        </>
      )}
      {sync.state !== "IN_SYNC" && (
        <span className="soft">
          {sync.since !== undefined && (
            <>
              {said ? ", since " : " Since "}
              <Time at={sync.since} />.{" "}
            </>
          )}
          {sync.commit !== undefined && <Link to={whyPath(ws, "commit", sync.commit, app.id)}>Why?</Link>}
        </span>
      )}
    </p>
  );
}

/** The newest deployment, which is not what is live: its state, and for a failed one why and the way on. */
function Newest({ app, latest }: { app: App; latest: DeploymentSummary }) {
  const { ws } = usePlace();
  const myLabel = useMyLabel();
  const failed = latest.state === "FAILED";
  const d = useQuery(deploymentQuery(ws, app.id, latest.number)).data;
  const end = useQuery({ ...logEndQuery(ws, app.id, latest.number), enabled: failed }).data ?? [];
  const redeploy = useRedeploy(app.id, latest.number);
  const page = `/w/${ws}/apps/${app.id}/deployments/${latest.number}`;
  const why = d === undefined ? "" : failureText(d);
  // What the program said last, not what Devpilot says of it.
  const said = end.filter((r) => r.hook !== undefined && r.stream !== "SYSTEM").slice(-3);
  const waits = d !== undefined && !ended(d.state) ? d.waitingFor?.message : undefined;
  return (
    <div className="newest">
      <h2 className="hidden">Newest deployment</h2>
      <div className="answer-head">
        <Status look={deploymentLook(latest.state)} /> <Link to={page}>#{latest.number}</Link>{" "}
        {why !== "" && (
          <strong>
            <Said>{why}</Said>
          </strong>
        )}
        <span className="soft push">
          <Time at={latest.time} />
          {d !== undefined && d.startTime !== undefined && (
            <>
              {" · "}
              <Took start={workStart(d)} end={d.endTime} />
            </>
          )}
        </span>
      </div>
      <p>
        {latest.commit === undefined ? (
          <span className="soft">{triggerText(latest, myLabel)}</span>
        ) : (
          <>
            <code>{shortHash(latest.commit.hash)}</code> <Text>{subject(latest.commit.message)}</Text>{" "}
            <span className="soft">· {triggerText(latest, myLabel)}</span>
          </>
        )}
      </p>
      {waits !== undefined && waits !== "" && (
        <p className="soft">
          <Said>{waits}</Said>
        </p>
      )}
      {failed && said.length > 0 && (
        <pre aria-label="Its last lines">
          {said.map((r) => (
            <bdi key={r.line}>{`${r.text}\n`}</bdi>
          ))}
        </pre>
      )}
      {redeploy.isError && <Failed error={redeploy.error} workspace={ws} title="Nothing was deployed." />}
      <div className="actions">
        <Link className="button plain" to={page}>
          Log
        </Link>
        {failed && (
          <Button busy={redeploy.isPending} onClick={() => redeploy.mutate()}>
            {redeploy.isPending ? "Starting…" : "Redeploy"}
          </Button>
        )}
        {failed && d?.live === true && <RollbackPrevious d={d} app={app} />}
      </div>
    </div>
  );
}

/** What is live: its commit, since when, and the way to look at it. */
function Live({ app, d }: { app: App; d: DeploymentSummary }) {
  const { ws } = usePlace();
  const site = httpUrl(app.liveUrl);
  const url = httpUrl(d.commit?.url);
  const hash = <code>{shortHash(d.commit?.hash)}</code>;
  return (
    <div className="headline">
      <div>
        <div className="answer-head">
          <h2>
            <Status look={liveLook} />
          </h2>{" "}
          <Link to={`/w/${ws}/apps/${app.id}/deployments/${d.number}`}>#{d.number}</Link>{" "}
          <strong>
            <Text>{subject(d.commit?.message)}</Text>
          </strong>
        </div>
        <p>
          {url === undefined ? (
            hash
          ) : (
            <a href={url} target="_blank" rel="noreferrer">
              {hash}
              <span className="hidden"> on Bitbucket</span>
            </a>
          )}{" "}
          <span className="soft">
            by <Text>{d.commit?.authorName}</Text>, live since <Time at={d.time} />
          </span>
        </p>
        {site === undefined && (app.serve?.directory ?? "") === "" && (
          <p className="soft">
            To look at it in a browser,{" "}
            <Link to={`/w/${ws}/apps/${app.id}?tab=settings&section=options`}>say which directory is served</Link>: the
            next deployment then has a link here.
          </p>
        )}
      </div>
      {site !== undefined && (
        <a className="button plain" href={site} target="_blank" rel="noreferrer">
          Open the live site <Icon name="external" />
        </a>
      )}
    </div>
  );
}
