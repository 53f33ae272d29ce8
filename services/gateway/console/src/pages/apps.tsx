import { useState } from "react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import { appsByNeedQuery } from "../api/apps";
import type { App, NeedCount } from "../api/client";
import { integrationQuery } from "../api/queries";
import { shortHash, subject } from "../lib/text";
import { appLook, asYou, behindText, needs, reasonText } from "../lib/words";
import { useMyLabel, usePlace } from "../lib/workspace";
import { Failed, More, PageTitle, Said, Skeleton, Status, Text, Time, useTitle } from "../ui/basics";
import { later } from "../ui/later";
import { useDeploy } from "../ui/deploy-latest";
import { Icon } from "../ui/icons";
import { RowLink, Rows } from "../ui/rows";
import { SearchText } from "../ui/search-text";
import { pictureHeight, WhenSeen } from "../ui/seen";
import { WorkspaceTrouble } from "../ui/trouble";

const WorkspaceWeek = later(() => import("../ui/days"), <div style={{ minHeight: pictureHeight }} />);
const AppMenu = later(() => import("../ui/app-menu"));

export default function Apps() {
  const { ws, adminOnly } = usePlace();
  const [address, setAddress] = useSearchParams();
  const [, , need] = needs.find(([id]) => id === address.get("state")) ?? [];
  const query = (address.get("q") ?? "").trim().slice(0, 200);
  const filtered = need !== undefined || query !== "";
  const apps = useInfiniteQuery(
    appsByNeedQuery(ws, { ...(need === undefined ? {} : { need }), ...(query === "" ? {} : { query }) }),
  );
  const integration = useQuery(integrationQuery(ws));
  useTitle("Apps");

  // An app whose need changed between two pages is on both.
  const shown = [...new Map(apps.data?.pages.flatMap((p) => p.apps).map((a) => [a.id, a])).values()];
  const [first] = apps.data?.pages ?? [];
  const count = (first?.needs ?? []).reduce((n, c) => n + c.apps, 0);
  const state = integration.data?.state;
  const [menu, setMenu] = useState<{ app: string; button: HTMLElement; byKey: boolean }>();
  const menuApp = shown.find((a) => a.id === menu?.app);
  const deploy = useDeploy();
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
      <WorkspaceTrouble integration={integration.data} apps={count} troubles={first?.troubles ?? []} />
      {apps.isPending ? (
        <Skeleton rows={6} />
      ) : apps.isError && first === undefined ? (
        <Failed error={apps.error} workspace={ws} retry={() => void apps.refetch()} />
      ) : count === 0 ? (
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
          {count > 3 && (
            <div className="filters">
              {count > 7 && (
                <SearchText
                  search
                  label="Search apps"
                  placeholder="Search apps  /"
                  value={query}
                  onChange={(q) =>
                    setAddress(
                      (old) => {
                        if (q === "") old.delete("q");
                        else old.set("q", q);
                        return old;
                      },
                      { replace: true },
                    )
                  }
                />
              )}
              <Needs total={count} counts={first?.needs ?? []} />
            </div>
          )}
          {shown.length > 0 && (
            <Rows label="Apps" busy={apps.isPlaceholderData}>
              {shown.map((a) => (
                <AppRow
                  key={a.id}
                  app={a}
                  open={menu?.app === a.id}
                  onMenu={(button, byKey) => setMenu({ app: a.id, button, byKey })}
                />
              ))}
            </Rows>
          )}
          {shown.length === 0 && (
            <p className="soft">
              {query === ""
                ? "No app is in this state."
                : `No app's name, repository or branch contains “${query}”${need === undefined ? "" : ", of those in this state"}.`}
            </p>
          )}
          {menuApp !== undefined && menu !== undefined && (
            <AppMenu
              app={menuApp}
              button={menu.button}
              byKey={menu.byKey}
              onDeploy={() => deploy.mutate({ app: menuApp.id })}
              onClose={() => setMenu(undefined)}
            />
          )}
          <More query={apps} />
          {!filtered && (
            <WhenSeen height={pictureHeight}>
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
function AppRow({
  app: a,
  open,
  onMenu,
}: {
  app: App;
  open: boolean;
  onMenu: (button: HTMLElement, byKey: boolean) => void;
}) {
  const { ws } = usePlace();
  const myLabel = useMyLabel();
  const why = [behindText(a.sync), asYou(reasonText(a), myLabel)].filter((t) => t !== "").join(" · ");
  // What is on its way is told rather than what it will replace.
  const shown = a.need === "DEPLOYING" ? (a.latest ?? a.live) : a.live;
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
        onClick={(e) => onMenu(e.currentTarget, e.detail === 0)}
      >
        <Icon name="more" />
      </button>
    </li>
  );
}

/** Filters by what apps need, with how many do; the choice stands in the address. */
function Needs({ total, counts }: { total: number; counts: NeedCount[] }) {
  const { ws } = usePlace();
  const [address] = useSearchParams();
  const chosen = address.get("state");
  const known = needs.some(([id]) => id === chosen);
  const to = (id: string | undefined) => {
    const query = new URLSearchParams(address);
    if (id === undefined) query.delete("state");
    else query.set("state", id);
    return `/w/${ws}/apps${query.size === 0 ? "" : `?${query}`}`;
  };
  return (
    <nav className="needs" aria-label="Apps by how they stand">
      <Link to={to(undefined)} aria-current={known ? undefined : "true"}>
        All {total}
      </Link>
      {needs
        .map(([id, word, need]) => ({ id, word, n: counts.find((c) => c.need === need)?.apps ?? 0 }))
        .filter(({ id, n }) => id === chosen || n > 0)
        .map(({ id, word, n }) => (
          <Link key={id} to={to(id)} aria-current={id === chosen ? "true" : undefined}>
            {word} {n}
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
