import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "react-router";
import type { App, Deployment } from "../api/client";
import { appQuery, deploymentQuery } from "../api/queries";
import { httpUrl, shortHash, subject } from "../lib/text";
import { deploymentLook, ended, glyph, triggerText, workStart } from "../lib/words";
import { whyPath } from "../lib/why";
import { Served } from "../ui/served";
import { useMyLabel, usePlace } from "../lib/workspace";
import { Banner, Failed, PageTitle, Said, Skeleton, Status, Text, Time, Took, Upcoming, useTitle } from "../ui/basics";
import { NotFound } from "./missing";
import { DeploymentActions } from "../ui/deployment-actions";
import { Failure } from "../ui/failure";
import { LogView } from "../ui/log-view";
import { Rail } from "../ui/stages";
import { useLog } from "../ui/use-log";

/** A number as deployments have them; what else stands in an address names none. */
const numbered = (text: string) => /^[1-9]\d{0,9}$/.test(text) && Number(text) < 2 ** 31;

export default function DeploymentPage() {
  const { ws } = usePlace();
  const { app = "", number = "" } = useParams();
  // What was done to another deployment is not said of this one.
  return numbered(number) ? (
    <Numbered key={`${ws}/${app}/${number}`} app={app} n={Number(number)} />
  ) : (
    <NotFound framed />
  );
}

function Numbered({ app, n }: { app: string; n: number }) {
  const { ws } = usePlace();
  const deployment = useQuery(deploymentQuery(ws, app, n));
  const d = deployment.data;
  const owner = useQuery({ ...appQuery(ws, app), enabled: d !== undefined }).data;
  useTitle(d === undefined ? `#${n} ${app}` : `${glyph(deploymentLook(d.state))} #${n} ${app}`);
  return (
    <>
      <PageTitle
        actions={d !== undefined && <DeploymentActions d={d} app={owner} />}
        path={[
          ["Apps", `/w/${ws}/apps`],
          [app, `/w/${ws}/apps/${app}`],
        ]}
      >
        #{n}
      </PageTitle>
      {d === undefined ? (
        deployment.isError ? (
          <Failed error={deployment.error} workspace={ws} retry={() => void deployment.refetch()} />
        ) : (
          <Skeleton rows={8} />
        )
      ) : (
        <>
          {deployment.isError && (
            <Failed
              error={deployment.error}
              title="The state could not be brought up to date."
              retry={() => void deployment.refetch()}
            />
          )}
          <Head d={d} app={owner} />
          <Served d={d} app={owner} />
          <Body d={d} app={owner} />
        </>
      )}
    </>
  );
}

function Body({ d, app }: { d: Deployment; app: App | undefined }) {
  const { ws } = usePlace();
  const log = useLog(ws, d.app, d.number);
  return (
    <>
      {d.state === "FAILED" && <Failure d={d} app={app} log={log} />}
      <div className="deployment">
        <Rail d={d} log={log} />
        <LogView
          ws={ws}
          app={d.app}
          number={d.number}
          over={ended(d.state)}
          ran={d.startTime !== undefined || !ended(d.state)}
          log={log}
        />
      </div>
    </>
  );
}

function Head({ d, app }: { d: Deployment; app: App | undefined }) {
  const { ws } = usePlace();
  const myLabel = useMyLabel();
  const site = d.live ? httpUrl(app?.liveUrl) : undefined;
  const release = httpUrl(d.releaseUrl);
  const url = httpUrl(d.commit?.url);
  const hash = <code>{shortHash(d.commit?.hash)}</code>;
  return (
    <>
      <p className="subline" aria-live="polite">
        <Status look={deploymentLook(d.state)} />
        {d.live && <span className="tag live">live</span>}
        {d.state !== "COMPLETED" && (
          <>
            {" "}
            <Link to={whyPath(ws, "deployment", d.number, d.app)}>Why?</Link>
          </>
        )}
        {d.state === "PROCESSING" && <span className="soft num"> {d.progressPercent} %</span>}
        {d.cancelTime !== undefined && !ended(d.state) && (
          <span className="soft">
            {" "}
            being cancelled
            {d.cancelledBy !== undefined && (
              <> by {d.cancelledBy.label === myLabel ? "you" : <Text>{d.cancelledBy.label}</Text>}</>
            )}
          </span>
        )}
        {d.state === "CANCELLED" && d.cancelledBy !== undefined && (
          <span className="soft">
            {" "}
            by {d.cancelledBy.label === myLabel ? "you" : <Text>{d.cancelledBy.label}</Text>}
          </span>
        )}
        {d.state === "SUPERSEDED" && d.supersededBy !== undefined && (
          <>
            {" "}
            by <Link to={`/w/${ws}/apps/${d.app}/deployments/${d.supersededBy}`}>#{d.supersededBy}</Link>, a newer push
          </>
        )}
        {(site !== undefined || release !== undefined) && (
          <span className="sites">
            {site !== undefined && (
              <a href={site} target="_blank" rel="noreferrer">
                Open the live site
              </a>
            )}
            {release !== undefined && (
              <a href={release} target="_blank" rel="noreferrer">
                Open this release
              </a>
            )}
          </span>
        )}
      </p>
      {d.state === "PROCESSING" && (
        <progress className="progress" max={100} value={d.progressPercent} aria-label="Progress of the deployment" />
      )}
      <p className="subline">
        {d.commit === undefined ? (
          <span className="soft">
            {ended(d.state) ? "Ended before its commit was known." : "The commit is fixed when the deployment starts."}
          </span>
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
              by <Text>{d.commit.authorName}</Text> {d.tag === undefined ? "on " : "tagged "}
              <Text>{d.tag === undefined ? d.branch : d.tag}</Text>
            </span>
          </>
        )}
      </p>
      <p className="subline soft">
        <Text>{triggerText(d, myLabel)}</Text> · <Time at={d.createTime} />
        {d.startTime !== undefined && (
          <>
            {" · "}
            {ended(d.state) ? "took " : d.state === "PENDING" ? "first tried " : "running for "}
            {d.state === "PENDING" ? <Time at={d.startTime} /> : <Took start={workStart(d)} end={d.endTime} />}
          </>
        )}
        {" · "}on server <Text>{d.server}</Text>
        {d.attempt > 1 && ` · attempt ${d.attempt}`}
        {d.requestedCommit !== undefined && d.requestedCommit.hash !== d.commit?.hash && (
          <>
            {" · asked for "}
            <code>{shortHash(d.requestedCommit.hash)}</code>; the branch had moved on
          </>
        )}
      </p>
      {d.state === "PENDING" && d.waitingFor !== undefined && (
        <Banner tone="warn" title="Waiting.">
          <Said>{d.waitingFor.message}</Said>
          {d.retryTime !== undefined && (
            <>
              {" "}
              Next try <Upcoming at={d.retryTime} />.
            </>
          )}
        </Banner>
      )}
      {d.notes.map((note) => (
        <Banner key={note} tone="idle">
          <Said>{note}</Said>
        </Banner>
      ))}
    </>
  );
}
