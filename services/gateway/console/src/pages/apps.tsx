import { useEffect, useState } from "react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import type { App } from "../api/client";
import { appsQuery, integrationQuery } from "../api/queries";
import { shortHash, subject } from "../lib/text";
import { byNeed, deploymentLook, needOf, needs, syncLook, type Need } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Failed, More, onListKeys, PageTitle, Skeleton, Status, Text, Time, useTitle } from "../ui/basics";
import { WorkspaceTrouble } from "../ui/trouble";

/** How many pages of 100 apps are loaded to be sorted by what they need. */
const sortedPages = 10;

export default function Apps() {
  const { ws, adminOnly } = usePlace();
  const apps = useInfiniteQuery(appsQuery(ws));
  const integration = useQuery(integrationQuery(ws));
  const [query, setQuery] = useState("");
  const [address] = useSearchParams();
  useTitle("Apps");

  const all = apps.data?.pages.flatMap((p) => p.apps) ?? [];
  const q = query.trim().toLowerCase();
  const need = needs.find(([id]) => id === address.get("state"))?.[0];
  const shown = byNeed(all).filter(
    (a) =>
      (need === undefined || needOf(a) === need) &&
      (q === "" || `${a.id} ${a.repositoryFullName} ${a.branch}`.toLowerCase().includes(q)),
  );
  // What needs somebody comes first, wherever it stands in the list.
  const { hasNextPage, isFetching, fetchNextPage } = apps;
  const more = hasNextPage && !isFetching && (apps.data?.pages.length ?? 0) < sortedPages;
  useEffect(() => {
    if (more) void fetchNextPage();
  }, [more, fetchNextPage]);
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
      <WorkspaceTrouble integration={integration.data} apps={all} />
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
          {all.length > 3 && (
            <div className="filters">
              {all.length > 7 && (
                <input
                  type="search"
                  data-search
                  aria-label="Search apps"
                  placeholder="Search apps  /"
                  value={query}
                  onChange={(e) => setQuery(e.target.value)}
                />
              )}
              <Needs all={all} need={need} />
            </div>
          )}
          <div className="table-scroll">
            <table onKeyDown={onListKeys}>
              <thead>
                <tr>
                  <th scope="col">App</th>
                  <th scope="col">Repository and branch</th>
                  <th scope="col">Stands</th>
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
                    <td data-label="Stands">
                      <Status look={syncLook(a.sync)} />
                      {a.sync !== undefined && a.sync.state !== "IN_SYNC" && (
                        <span className="soft reason">
                          {" "}
                          <Text>{a.sync.message}</Text>
                        </span>
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
          {shown.length === 0 && (
            <p className="soft">
              {q === ""
                ? "No app stands so."
                : `No app's name, repository or branch contains “${query}”${need === undefined ? "" : ", of those that stand so"}.`}
            </p>
          )}
          <More query={apps} />
        </>
      )}
    </>
  );
}

/** Filters by what apps need, with how many do; the choice stands in the address. */
function Needs({ all, need }: { all: App[]; need: Need | undefined }) {
  const { ws } = usePlace();
  const count = (id: Need) => all.filter((a) => needOf(a) === id).length;
  return (
    <nav className="needs" aria-label="Apps by how they stand">
      <Link to={`/w/${ws}/apps`} aria-current={need === undefined ? "true" : undefined}>
        All {all.length}
      </Link>
      {needs
        .filter(([id]) => id === need || count(id) > 0)
        .map(([id, word]) => (
          <Link key={id} to={`/w/${ws}/apps?state=${id}`} aria-current={id === need ? "true" : undefined}>
            {word} {count(id)}
          </Link>
        ))}
    </nav>
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
