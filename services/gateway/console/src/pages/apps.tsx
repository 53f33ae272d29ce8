import { useEffect, useState } from "react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import type { App } from "../api/client";
import { appsQuery, integrationQuery } from "../api/queries";
import { shortHash, subject } from "../lib/text";
import { appLook, asYou, behindText, byNeed, needOf, needs, reasonText, type Need } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Failed, More, PageTitle, Said, Skeleton, Status, Text, Time, useTitle } from "../ui/basics";
import { later } from "../ui/later";
import { useDeployLatest } from "../ui/deploy-latest";
import { Icon } from "../ui/icons";
import { RowLink, Rows } from "../ui/rows";
import { WhenSeen } from "../ui/seen";
import { WorkspaceTrouble } from "../ui/trouble";

/** About what the picture takes, so that what follows stays where it is. */
const weekHeight = 190;

const WorkspaceWeek = later(() => import("../ui/days"), <div style={{ minHeight: weekHeight }} />);
const AppMenu = later(() => import("../ui/app-menu"));

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
  const [menu, setMenu] = useState<{ app: string; button: HTMLElement }>();
  const menuApp = all.find((a) => a.id === menu?.app);
  const deploy = useDeployLatest();
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
          {deploy.isError && (
            <Failed error={deploy.error} workspace={ws} title={`${deploy.variables.app} was not deployed.`} />
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
          {shown.length > 0 && (
            <Rows label="Apps">
              {shown.map((a) => (
                <AppRow
                  key={a.id}
                  app={a}
                  open={menu?.app === a.id}
                  onMenu={(button) => setMenu({ app: a.id, button })}
                />
              ))}
            </Rows>
          )}
          {shown.length === 0 && (
            <p className="soft">
              {q === ""
                ? "No app is in this state."
                : `No app's name, repository or branch contains “${query}”${need === undefined ? "" : ", of those in this state"}.`}
            </p>
          )}
          {menuApp !== undefined && menu !== undefined && (
            <AppMenu
              app={menuApp}
              button={menu.button}
              onDeploy={() => deploy.mutate({ app: menuApp.id })}
              onClose={() => setMenu(undefined)}
            />
          )}
          <More query={apps} />
          {need === undefined && q === "" && (
            <WhenSeen height={weekHeight}>
              <div className="charts week">
                <WorkspaceWeek />
              </div>
            </WhenSeen>
          )}
        </>
      )}
    </>
  );
}

/** An app in a line: how it stands, why or what is live, where it comes from, when it was deployed last. */
function AppRow({ app: a, open, onMenu }: { app: App; open: boolean; onMenu: (button: HTMLElement) => void }) {
  const { ws, me } = usePlace();
  const why = [behindText(a.sync), asYou(reasonText(a), me.label)].filter((t) => t !== "").join(" · ");
  // What is on its way is told rather than what it will replace.
  const shown = needOf(a) === "deploying" ? (a.latest ?? a.live) : a.live;
  const off = !a.autoDeploy ? "auto-deploy off" : a.autoDeployPaused !== undefined ? "auto-deploy paused" : undefined;
  return (
    <li className="row app-row">
      <span className="pill">
        <Status look={appLook(a)} />
      </span>
      <RowLink className="clip" to={`/w/${ws}/apps/${a.id}`} title={a.id}>
        {a.id}
      </RowLink>
      <span className="what" title={why === "" ? undefined : why}>
        {why !== "" ? (
          <Said>{why}</Said>
        ) : shown === undefined ? (
          "Nothing is live yet"
        ) : (
          <>
            <code>{shortHash(shown.commit?.hash)}</code> <Text>{subject(shown.commit?.message)}</Text>
            {off !== undefined && ` · ${off}`}
          </>
        )}
      </span>
      <span className="from" title={`${a.repositoryFullName}, ${a.branch}`}>
        <span className="clip">
          <Text>{a.repositoryFullName}</Text>
        </span>{" "}
        <Icon name="branch" />
        <span className="clip">
          <Text>{a.branch}</Text>
        </span>
      </span>
      <span className="when">
        {a.latest !== undefined && (
          <>
            #{a.latest.number} · <Time at={a.latest.time} />
          </>
        )}
      </span>
      <button
        type="button"
        className="button quiet row-menu"
        aria-label={`More about ${a.id}`}
        aria-haspopup="menu"
        aria-expanded={open}
        onClick={(e) => onMenu(e.currentTarget)}
      >
        <Icon name="more" />
      </button>
    </li>
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
