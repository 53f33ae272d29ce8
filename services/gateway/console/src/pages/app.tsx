import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useParams, useSearchParams } from "react-router";
import { api, body, type App } from "../api/client";
import { appQuery, keys } from "../api/queries";
import { remedyFor } from "../lib/remedy";
import { deploymentLook, glyph, statusNotSent, watched } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Banner, Failed, PageTitle, Said, Skeleton, Text, Time, useTitle } from "../ui/basics";
import { later } from "../ui/later";
import { Answer } from "../ui/answer";
import { Deploy, DeployLatest } from "../ui/deployment-actions";
import { Deliveries } from "../ui/deliveries";
import { History } from "../ui/history";
import { pictureHeight, WhenSeen } from "../ui/seen";
import { LiveLink } from "../ui/served";
import { Switch } from "../ui/switch";
import { WebhookHealth } from "../ui/webhook";

const AppSettings = later(() => import("../ui/app-settings"), <Skeleton />);
const Charts = later(() => import("../ui/charts"), <div style={{ minHeight: pictureHeight }} />);

const tabs = ["overview", "deployments", "deliveries", "settings"] as const;

export default function AppPage() {
  const { ws } = usePlace();
  const { app = "" } = useParams();
  return <One key={`${ws}/${app}`} id={app} />; // what was done to another app is not said of this one
}

function One({ id }: { id: string }) {
  const { ws } = usePlace();
  const [query] = useSearchParams();
  const app = useQuery(appQuery(ws, id));
  const tab = tabs.find((t) => t === query.get("tab")) ?? "overview";
  const latest = app.data?.latest;
  const look = latest === undefined ? undefined : deploymentLook(latest.state);
  useTitle(
    look === undefined || latest === undefined ? id : `${glyph(look)} #${latest.number} ${id}`,
    tab === "overview" ? undefined : tab.charAt(0).toUpperCase() + tab.slice(1),
  );
  if (app.data === undefined) {
    return (
      <>
        <PageTitle>{id}</PageTitle>
        {app.isPending ? (
          <Skeleton rows={8} />
        ) : (
          <Failed error={app.error} workspace={ws} retry={() => void app.refetch()} />
        )}
      </>
    );
  }
  return (
    <>
      <PageTitle
        actions={
          <>
            <Deploy app={app.data} />
            <DeployLatest app={app.data} />
          </>
        }
        path={[["Apps", `/w/${ws}/apps`]]}
      >
        {id}
      </PageTitle>
      <p className="soft subline">
        <LiveLink app={app.data} /> <Text>{app.data.repositoryFullName}</Text> · <Text>{app.data.branch}</Text> · server{" "}
        {app.data.server}
      </p>
      {app.isError && (
        <Failed error={app.error} title="The app could not be brought up to date." retry={() => void app.refetch()} />
      )}
      <nav className="tabs" aria-label="App">
        {tabs.map((t) => (
          <Link
            key={t}
            to={t === "overview" ? `/w/${ws}/apps/${id}` : `/w/${ws}/apps/${id}?tab=${t}`}
            aria-current={t === tab ? "page" : undefined}
          >
            {t.charAt(0).toUpperCase() + t.slice(1)}
          </Link>
        ))}
      </nav>
      {tab === "overview" && <Overview app={app.data} />}
      {tab === "deployments" && <History app={app.data} filters />}
      {tab === "deliveries" && <Deliveries app={app.data} />}
      {tab === "settings" && <AppSettings app={app.data} />}
    </>
  );
}

function Overview({ app }: { app: App }) {
  const { ws } = usePlace();
  const pauseRemedy = remedyFor(app.autoDeployPaused?.reason).action;
  return (
    <>
      {app.warnings
        // Said once: the webhook's own trouble is told beside it, what the installation lacks at its option.
        .filter((w) => w.reason !== statusNotSent && w.reason !== app.webhook?.reason)
        .map((w) => (
          <Banner key={w.reason} tone="warn">
            <Said>{w.message}</Said>
          </Banner>
        ))}
      <Answer app={app} />
      <WhenSeen height={pictureHeight}>
        <Charts app={app} />
      </WhenSeen>
      <section className="card auto" aria-labelledby="auto">
        <div className="card-head">
          <h2 id="auto">Auto-deploy</h2>
          <AutoDeploy app={app} />
        </div>
        {app.autoDeployPaused !== undefined && (
          <Banner
            tone="warn"
            title="Auto-deploy is paused."
            actions={
              pauseRemedy !== undefined && (
                <Link className="button plain" to={pauseRemedy.to(ws)}>
                  {pauseRemedy.label}
                </Link>
              )
            }
          >
            <Said>{app.autoDeployPaused.message}</Said> Since <Time at={app.autoDeployPaused.time} style="clock" />.
          </Banner>
        )}
        <WebhookHealth app={app} />
      </section>
      <section aria-labelledby="recent">
        <h2 id="recent">Recent deployments</h2>
        <History app={app} />
      </section>
    </>
  );
}

/** The switch shows at once what was asked for, and goes back when it was refused. */
function AutoDeploy({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const key = appQuery(ws, app.id).queryKey;
  const change = useMutation({
    // On and off again: in this order, however long each takes.
    scope: { id: `auto-deploy of ${ws}/${app.id}` },
    mutationFn: async (autoDeploy: boolean) =>
      body(
        await api.PATCH("/v1/workspaces/{workspace}/apps/{app}", {
          params: { path: { workspace: ws, app: app.id } },
          body: { autoDeploy },
        }),
      ),
    onSuccess: (fresh) => client.setQueryData(key, fresh),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "app") }),
  });
  const selected = change.isPending ? change.variables : app.autoDeploy;
  return (
    <>
      <Switch
        selected={selected}
        onChange={(v) => change.mutate(v)}
        disabled={adminOnly !== undefined}
        describedBy="auto-hint"
      >
        Deploy on every push to <Text>{watched(app.branch)}</Text>
      </Switch>
      <p id="auto-hint" className="hidden">
        {adminOnly ?? (app.autoDeploy ? "On" : "Off")}
      </p>
      {adminOnly !== undefined && <p className="soft">{adminOnly}</p>}
      {change.isError && <Failed error={change.error} workspace={ws} title="Auto-deploy was not changed." />}
    </>
  );
}
