import { useId, useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "react-router";
import { api, asApiError, body, type Repository } from "../api/client";
import { integrationQuery, keys, serversQuery } from "../api/queries";
import { leaves } from "../lib/leaving";
import { isPattern, slug } from "../lib/text";
import { usePlace } from "../lib/workspace";
import { retentionPattern, retentionWords } from "../lib/limits";
import { notAdmin } from "../lib/words";
import { Banner, Button, Failed, PageTitle, Skeleton, Text, useTitle } from "../ui/basics";
import { BranchSelect } from "../ui/branches";
import { RepositorySelect } from "../ui/repositories";
import { ServeField } from "../ui/serve-field";
import { Check, TextField } from "../ui/settings/parts";
import { here, useOnce } from "../ui/started";
import { Switch } from "../ui/switch";
import { Unsaved } from "../ui/unsaved";
import { Icon } from "../ui/icons";

const idPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

export default function NewApp() {
  const { ws, adminOnly } = usePlace();
  const integration = useQuery(integrationQuery(ws));
  useTitle("New app");
  const state = integration.data?.state;
  return (
    <>
      <PageTitle>New app</PageTitle>
      {adminOnly !== undefined && (
        <Banner tone="warn" title="You can look, but not save.">
          {adminOnly}
        </Banner>
      )}
      {integration.isPending ? (
        <Skeleton rows={6} />
      ) : state === undefined ? (
        <Failed error={integration.error} workspace={ws} retry={() => void integration.refetch()} />
      ) : state === "NOT_CONNECTED" || state === "RECONNECT_REQUIRED" ? (
        <section className="empty">
          <h2>{state === "NOT_CONNECTED" ? "Connect Bitbucket first" : "Connect Bitbucket again first"}</h2>
          <p>
            The form offers the repositories that the connected account can reach.{" "}
            {state === "RECONNECT_REQUIRED" && "Bitbucket refused the stored connection."}
          </p>
          <Link className="button primary" to={`/w/${ws}/settings/integrations`}>
            Open Integrations
          </Link>
        </section>
      ) : (
        <Form />
      )}
    </>
  );
}

function Form() {
  const { ws, info, adminOnly } = usePlace();
  const navigate = useNavigate();
  const client = useQueryClient();
  const servers = useQuery(serversQuery);
  const [repository, setRepository] = useState<Repository>();
  const [branch, setBranch] = useState("");
  const [pattern, setPattern] = useState(false);
  const [autoDeploy, setAutoDeploy] = useState(true);
  const [appId, setAppId] = useState("");
  const [named, setNamed] = useState(false);
  const [server, setServer] = useState("default");
  const [retention, setRetention] = useState("5");
  const [directory, setDirectory] = useState("");
  const [tried, setTried] = useState(false);
  const once = useOnce();
  const ids = useId();

  const save = useMutation({
    onMutate: here,
    mutationFn: (deployNow: boolean) => {
      const wanted = {
        appId,
        app: {
          repository: repository?.id ?? "",
          branch: branch.trim(),
          autoDeploy,
          server,
          retention: Number(retention),
          ...(directory.trim() === "" ? {} : { serve: { directory: directory.trim() } }),
        },
        deployNow,
      };
      return once(JSON.stringify(wanted), async (requestId) =>
        body(
          await api.POST("/v1/workspaces/{workspace}/apps", {
            params: { path: { workspace: ws } },
            body: { ...wanted, requestId },
          }),
        ),
      );
    },
    onSuccess: (app, _, from) => {
      void client.invalidateQueries({ queryKey: keys.kind(ws, "app") });
      if (from !== here()) return;
      void navigate(
        // What is to be done by hand stands on the app's page: it is not passed by.
        app.latest === undefined || app.webhook?.reason === "NOT_REPOSITORY_ADMIN"
          ? `/w/${ws}/apps/${app.id}`
          : `/w/${ws}/apps/${app.id}/deployments/${app.latest.number}`,
        { state: leaves },
      );
    },
  });
  const refused = save.isError ? asApiError(save.error) : undefined;
  const errors = {
    repository:
      (tried && repository === undefined ? "Choose a repository." : undefined) ?? refused?.field("repository"),
    branch:
      (tried && repository !== undefined && branch.trim() === ""
        ? pattern
          ? "Write a pattern."
          : "Choose a branch."
        : undefined) ?? refused?.field("branch"),
    appId:
      (tried && !idPattern.test(appId)
        ? "Lower-case letters, digits and hyphens; not a hyphen first; 63 at most."
        : undefined) ??
      refused?.field("appId") ??
      (refused?.reason === "APP_EXISTS" ? refused.message : undefined),
    retention: (tried && !retentionPattern.test(retention) ? retentionWords : undefined) ?? refused?.field("retention"),
  };
  const submit = (deployNow: boolean) => {
    setTried(true);
    if (repository === undefined || branch.trim() === "" || !idPattern.test(appId) || !retentionPattern.test(retention))
      return;
    save.mutate(deployNow);
  };
  const unplaced =
    refused !== undefined &&
    refused.reason !== "APP_EXISTS" &&
    refused.fields.every(
      (f) => !["repository", "branch", "appId", "retention", "directory"].some((n) => f.name.endsWith(n)),
    );
  return (
    <form
      className="form"
      noValidate
      onSubmit={(e) => {
        e.preventDefault();
        if (adminOnly === undefined) submit(!isPattern(branch));
      }}
    >
      <fieldset>
        <legend>
          <span className="step">1</span> Repository
        </legend>
        <RepositorySelect
          value={repository}
          error={errors.repository}
          onChange={(r) => {
            setRepository(r);
            setBranch(r.mainBranch ?? "");
            if (!named) setAppId(slug(r.name));
          }}
        />
        {repository !== undefined && (
          <div className="field">
            <label htmlFor={`${ids}-id`}>App id</label>
            <input
              id={`${ids}-id`}
              value={appId}
              spellCheck={false}
              autoComplete="off"
              aria-invalid={errors.appId !== undefined || undefined}
              aria-describedby={`${ids}-id-d`}
              onChange={(e) => {
                setNamed(true);
                setAppId(e.target.value);
              }}
            />
            <div id={`${ids}-id-d`} className={errors.appId === undefined ? "soft" : "field-error"}>
              {errors.appId ?? "Names the app in addresses; it stays as it is."}
            </div>
          </div>
        )}
      </fieldset>
      <fieldset disabled={repository === undefined}>
        <legend>
          <span className="step">2</span> Branch
        </legend>
        {pattern ? (
          <TextField
            label="Pattern of branches"
            code
            value={branch}
            onChange={setBranch}
            error={errors.branch}
            hint={
              <>
                Such as <code>release/*</code> or <code>feature/**</code>; case matters.
              </>
            }
          />
        ) : (
          <BranchSelect
            repository={repository?.id ?? ""}
            value={branch}
            onChange={setBranch}
            error={errors.branch}
            labelled
          />
        )}
        <Check
          label="Watch a pattern of branches instead of one"
          checked={pattern}
          disabled={repository === undefined}
          onChange={(on) => {
            setPattern(on);
            // A name is a pattern of itself; a pattern is no branch.
            if (!on && isPattern(branch)) setBranch(repository?.mainBranch ?? "");
          }}
        />
      </fieldset>
      <fieldset disabled={repository === undefined || branch === ""}>
        <legend>
          <span className="step">3</span> Auto-deploy
        </legend>
        <Switch
          selected={autoDeploy}
          onChange={setAutoDeploy}
          disabled={repository === undefined || branch === ""}
          describedBy={`${ids}-auto`}
        >
          Deploy on every push
        </Switch>
        <p id={`${ids}-auto`} className="consequence">
          <Consequence
            repository={repository}
            branch={branch}
            autoDeploy={autoDeploy}
            reachable={info?.webhooksReachable !== false}
          />
        </p>
        <ServeField
          repository={repository?.id ?? ""}
          branch={pattern ? "" : branch}
          value={directory}
          onChange={setDirectory}
          disabled={repository === undefined || branch === ""}
          error={refused?.field("serve.directory") ?? refused?.field("directory")}
        />
        <details>
          <summary>More settings</summary>
          {(servers.data?.servers.length ?? 0) > 1 && (
            <div className="field">
              <label htmlFor={`${ids}-s`}>Server</label>
              <select id={`${ids}-s`} value={server} onChange={(e) => setServer(e.target.value)}>
                {servers.data?.servers.map((s) => (
                  <option key={s.id} value={s.id}>
                    {s.id} ({s.workers.length === 1 ? "1 worker" : `${s.workers.length} workers`})
                  </option>
                ))}
              </select>
            </div>
          )}
          <div className="field">
            <label htmlFor={`${ids}-r`}>Releases to keep</label>
            <input
              id={`${ids}-r`}
              className="short"
              inputMode="numeric"
              value={retention}
              aria-invalid={errors.retention !== undefined || undefined}
              aria-describedby={`${ids}-r-d`}
              onChange={(e) => setRetention(e.target.value)}
            />
            <div id={`${ids}-r-d`} className={errors.retention === undefined ? "soft" : "field-error"}>
              {errors.retention ?? "Beside the live one, to go back to without fetching."}
            </div>
          </div>
        </details>
      </fieldset>
      <p className="soft">
        Hooks, variables, shared paths, rules, serving and configuration as code are in the app's settings once it is
        saved. To have them from the first deployment on, press Save.
      </p>
      {repository !== undefined && <Unsaved />}
      {unplaced && <Failed error={save.error} workspace={ws} title="The app was not saved." />}
      <div className="actions end">
        <Button
          look={isPattern(branch) ? "primary" : "plain"}
          forbidden={adminOnly}
          busy={save.isPending}
          onClick={() => submit(false)}
        >
          Save
        </Button>
        <Button
          type="submit"
          look={isPattern(branch) ? "plain" : "primary"}
          forbidden={
            adminOnly ??
            (isPattern(branch)
              ? "A pattern has no latest commit: press Save, then push to one of its branches, or choose one with Deploy latest."
              : undefined)
          }
          busy={save.isPending}
        >
          {save.isPending ? "Saving…" : "Save and deploy"}
        </Button>
      </div>
    </form>
  );
}

/** What the switch will do, before it does. */
export function Consequence({
  repository,
  branch,
  autoDeploy,
  reachable,
}: {
  repository: Repository | undefined;
  branch: string;
  autoDeploy: boolean;
  reachable: boolean;
}) {
  if (repository === undefined) return <>Choose a repository and a branch first.</>;
  if (!autoDeploy) return <>Nothing happens on a push. You deploy with Deploy latest.</>;
  if (!reachable) {
    return (
      <>
        Bitbucket cannot reach this address, so Devpilot asks for new commits of <Text>{branch}</Text> at intervals and
        deploys them.
      </>
    );
  }
  if (repository.permission !== "ADMIN") {
    return (
      <span className="tone-warn">
        <Icon name="alert" /> <Text>{notAdmin(repository.fullName)}</Text>: after saving, add the webhook by hand. The
        next page shows its URL and secret.
      </span>
    );
  }
  return (
    <>
      Devpilot will register a webhook on <Text>{repository.fullName}</Text>. Each push to{" "}
      {isPattern(branch) && "a branch that matches "}
      <Text>{branch}</Text> deploys.
    </>
  );
}
