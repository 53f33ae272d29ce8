import { useState } from "react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { appsQuery, integrationQuery } from "../api/queries";
import { shortHash, subject } from "../lib/text";
import { deploymentLook } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Banner, Failed, More, onListKeys, PageTitle, Skeleton, Status, Text, Time, useTitle } from "../ui/basics";

export default function Apps() {
  const { ws, adminOnly } = usePlace();
  const apps = useInfiniteQuery(appsQuery(ws));
  const integration = useQuery(integrationQuery(ws));
  const [query, setQuery] = useState("");
  useTitle("Apps");

  const all = apps.data?.pages.flatMap((p) => p.apps) ?? [];
  const q = query.trim().toLowerCase();
  const shown =
    q === "" ? all : all.filter((a) => `${a.id} ${a.repositoryFullName} ${a.branch}`.toLowerCase().includes(q));
  const state = integration.data?.state;
  return (
    <>
      <PageTitle
        actions={
          adminOnly === undefined ? (
            <Link
              className={state === "NOT_CONNECTED" ? "button plain" : "button primary"}
              to={`/w/${ws}/apps/new`}
              title="n"
            >
              New app
            </Link>
          ) : (
            <span className="soft">{adminOnly}</span>
          )
        }
      >
        Apps
      </PageTitle>
      {(state === "RECONNECT_REQUIRED" || state === "REFRESH_FAILING") && (
        <Banner
          tone={state === "RECONNECT_REQUIRED" ? "bad" : "warn"}
          title={
            state === "RECONNECT_REQUIRED"
              ? "Bitbucket must be connected again."
              : "Bitbucket does not renew the token for now."
          }
          actions={
            <Link className="button plain" to={`/w/${ws}/settings/integrations`}>
              Open Integrations
            </Link>
          }
        >
          {state === "RECONNECT_REQUIRED"
            ? "Pushes do not deploy until then. Apps and history stay."
            : "Deployments go on; you need do nothing."}
        </Banner>
      )}
      {apps.isPending ? (
        <Skeleton rows={6} />
      ) : apps.isError && all.length === 0 ? (
        <Failed error={apps.error} workspace={ws} retry={() => void apps.refetch()} />
      ) : all.length === 0 ? (
        <Empty
          connected={state !== undefined && state !== "NOT_CONNECTED"}
          ws={ws}
          mayCreate={adminOnly === undefined}
        />
      ) : (
        <>
          {apps.isError && (
            <Failed
              error={apps.error}
              title="The list could not be brought up to date."
              retry={() => void apps.refetch()}
            />
          )}
          {all.length > 7 && (
            <div className="filters">
              <input
                type="search"
                data-search
                aria-label="Search apps"
                placeholder="Search apps  /"
                value={query}
                onChange={(e) => setQuery(e.target.value)}
              />
            </div>
          )}
          <div className="table-scroll">
            <table onKeyDown={onListKeys}>
              <thead>
                <tr>
                  <th scope="col">App</th>
                  <th scope="col">Repository and branch</th>
                  <th scope="col">Live</th>
                  <th scope="col">Newest deployment</th>
                  <th scope="col">When</th>
                </tr>
              </thead>
              <tbody>
                {shown.map((a) => (
                  <tr key={a.id}>
                    <th scope="row">
                      <Link data-row to={`/w/${ws}/apps/${a.id}`}>
                        {a.id}
                      </Link>
                    </th>
                    <td data-label="Repository">
                      <Text>{a.repositoryFullName}</Text>
                      <span className="soft">
                        {" "}
                        <Text>{a.branch}</Text>
                      </span>
                      {!a.autoDeploy && <span className="soft"> · auto-deploy off</span>}
                      {a.autoDeploy && a.autoDeployPaused !== undefined && (
                        <span className="tone-warn"> · auto-deploy paused</span>
                      )}
                    </td>
                    <td data-label="Live">
                      {a.live === undefined ? (
                        <span className="soft">nothing yet</span>
                      ) : (
                        <>
                          <code>{shortHash(a.live.commit?.hash)}</code> <Text>{subject(a.live.commit?.message)}</Text>
                        </>
                      )}
                    </td>
                    <td data-label="Newest">
                      {a.latest === undefined ? (
                        <span className="soft">none</span>
                      ) : (
                        <Link to={`/w/${ws}/apps/${a.id}/deployments/${a.latest.number}`}>
                          <Status look={deploymentLook(a.latest.state)} /> #{a.latest.number}
                        </Link>
                      )}
                    </td>
                    <td className="nowrap" data-label="When">
                      <Time at={a.latest?.time} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {shown.length === 0 && <p className="soft">No app's name, repository or branch contains “{query}”.</p>}
          <More query={apps} />
        </>
      )}
    </>
  );
}

function Empty({ connected, ws, mayCreate }: { connected: boolean; ws: string; mayCreate: boolean }) {
  return (
    <section className="empty">
      <h2>{connected ? "No apps yet" : "Connect Bitbucket, then deploy"}</h2>
      <p>
        {connected
          ? "An app is a repository and a branch that Devpilot puts live, by a button or on every push."
          : "Devpilot needs to see your repositories before it can deploy one. Connecting takes a minute and is undone as easily."}
      </p>
      {connected ? (
        mayCreate && (
          <Link className="button primary" to={`/w/${ws}/apps/new`}>
            Create the first app
          </Link>
        )
      ) : (
        <Link className="button primary" to={`/w/${ws}/settings/integrations`}>
          Open Integrations
        </Link>
      )}
    </section>
  );
}
