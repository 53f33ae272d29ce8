import { Badge } from "./settings/badge";
import { useEffect, useId, useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearchParams } from "react-router";
import { api, asApiError, type App } from "../api/client";
import { appQuery, goes, isGoing, keys, serversQuery, stays, webhookQuery } from "../api/queries";
import { leaves } from "../lib/leaving";
import { isPattern } from "../lib/text";
import { usePlace } from "../lib/workspace";
import { retentionPattern, retentionWords } from "../lib/limits";
import { Button, Failed, Skeleton, Text } from "./basics";
import { later } from "./later";
import { BranchSelect } from "./branches";
import { Dialog } from "./dialog";
import { here } from "./started";
import { Switch } from "./switch";
import { Check, SaveRow, TextField } from "./settings/parts";
import { useDraft, useSave } from "./settings/save";
import { ManualSteps } from "./webhook";

const Commands = later(() => import("./settings/commands"), <Skeleton rows={8} />);
const Rules = later(() => import("./settings/rules"), <Skeleton rows={8} />);
const Options = later(() => import("./settings/options"), <Skeleton rows={8} />);

const sections = [
  ["general", "General"],
  ["hooks", "Hooks and variables"],
  ["rules", "Rules"],
  ["options", "Source and serving"],
] as const;

export default function AppSettings({ app }: { app: App }) {
  const { ws } = usePlace();
  const [query] = useSearchParams();
  const section = sections.find(([id]) => id === query.get("section"))?.[0] ?? "general";
  return (
    <div className="settings">
      <nav className="sections" aria-label="Settings">
        {sections.map(([id, name]) => (
          <Link
            key={id}
            to={`/w/${ws}/apps/${app.id}?tab=settings${id === "general" ? "" : `&section=${id}`}`}
            aria-current={id === section ? "page" : undefined}
          >
            {name}
          </Link>
        ))}
      </nav>
      <div className="settings-main">
        {section === "hooks" && <Commands app={app} />}
        {section === "rules" && <Rules app={app} />}
        {section === "options" && <Options app={app} />}
        {section === "general" && (
          <>
            <Edit app={app} />
            <Badge app={app} />
            <Manual app={app} />
            <Delete app={app} />
          </>
        )}
      </div>
    </div>
  );
}

function Edit({ app }: { app: App }) {
  const { adminOnly } = usePlace();
  const servers = useQuery(serversQuery);
  const ids = useId();
  const save = useSave(app);
  const off = adminOnly !== undefined;
  const draft = useDraft({
    branch: app.branch,
    autoDeploy: app.autoDeploy,
    server: app.server ?? "default",
    retention: String(app.retention),
  });
  const d = draft.draft;
  // What was refused is another text from the first key on.
  const set = (next: typeof d) => {
    if (save.isError) save.reset();
    draft.set(next);
  };
  const [pattern, setPattern] = useState(isPattern(app.branch));
  const refused = save.isError ? asApiError(save.error) : undefined;
  const badRetention = retentionPattern.test(d.retention) ? refused?.field("retention") : retentionWords;
  return (
    <form
      className="form"
      noValidate
      onSubmit={(e) => {
        e.preventDefault();
        if (!off && draft.changed && badRetention === undefined && d.branch.trim() !== "")
          save.mutate({ ...d, branch: d.branch.trim(), retention: Number(d.retention) });
      }}
    >
      <fieldset>
        <legend>What is deployed</legend>
        <div className="field">
          <span className="label">Repository</span>
          <div>
            <Text>{app.repositoryFullName}</Text> <span className="soft">stays; another repository is another app</span>
          </div>
        </div>
        {pattern ? (
          <TextField
            label="Pattern of branches"
            code
            disabled={off}
            value={d.branch}
            onChange={(branch) => set({ ...d, branch })}
            error={d.branch.trim() === "" ? "Write a pattern." : refused?.field("branch")}
            hint={
              <>
                Such as <code>release/*</code> or <code>feature/**</code>; case matters.
              </>
            }
          />
        ) : (
          <BranchSelect
            repository={app.repository}
            value={d.branch}
            onChange={(branch) => set({ ...d, branch })}
            error={refused?.field("branch")}
            disabled={off}
          />
        )}
        <Check
          label="Watch a pattern of branches instead of one"
          checked={pattern}
          disabled={off}
          onChange={setPattern}
        />
        <Switch selected={d.autoDeploy} onChange={(autoDeploy) => set({ ...d, autoDeploy })} disabled={off}>
          Deploy on every push
        </Switch>
      </fieldset>
      <fieldset>
        <legend>Where</legend>
        {(servers.data?.servers.length ?? 0) > 1 && (
          <div className="field">
            <label htmlFor={`${ids}-s`}>Server</label>
            <select
              id={`${ids}-s`}
              value={d.server}
              disabled={off}
              onChange={(e) => set({ ...d, server: e.target.value })}
            >
              {servers.data?.servers.map((s) => (
                <option key={s.id} value={s.id}>
                  {s.id}
                </option>
              ))}
            </select>
          </div>
        )}
        <TextField
          label="Releases to keep"
          short
          numeric
          disabled={off}
          value={d.retention}
          onChange={(retention) => set({ ...d, retention })}
          error={badRetention}
          hint="Beside the live one, to go back to."
        />
      </fieldset>
      <SaveRow draft={draft} save={save} hint="Neither another branch nor the switch deploys by itself." />
    </form>
  );
}

function Manual({ app }: { app: App }) {
  const { ws } = usePlace();
  const id = app.webhook?.id ?? "";
  const webhook = useQuery({ ...webhookQuery(ws, id), enabled: () => id !== "" && !isGoing(ws, app.id) });
  if (webhook.data === undefined || webhook.data.state !== "MANUAL") return null;
  return <ManualSteps webhook={webhook.data} />;
}

function Delete({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const navigate = useNavigate();
  const [open, setOpen] = useState(false);
  useEffect(() => () => void stays(ws, app.id), [ws, app.id]); // another one may have its name later
  const remove = useMutation({
    onMutate: () => {
      goes(ws, app.id);
      return here();
    },
    onError: () => void stays(ws, app.id),
    mutationFn: async () => {
      try {
        await api.DELETE("/v1/workspaces/{workspace}/apps/{app}", {
          params: { path: { workspace: ws, app: app.id }, query: { etag: app.etag } },
        });
      } catch (e) {
        if (asApiError(e).reason !== "APP_NOT_FOUND") throw e; // that it is gone is what was wanted
      }
    },
    onSuccess: async (_, __, from) => {
      if (from === here()) await navigate(`/w/${ws}/apps`, { state: leaves });
      client.removeQueries({ queryKey: appQuery(ws, app.id).queryKey });
      void client.invalidateQueries({ queryKey: keys.workspace(ws) });
    },
  });
  return (
    <section className="card" aria-labelledby="delete">
      <h2 id="delete">Delete the app</h2>
      <p>Deletes its deployments' records and its releases, also the live one.</p>
      <div className="actions end">
        <Button look="danger" forbidden={adminOnly} onClick={() => setOpen(true)}>
          Delete {app.id}…
        </Button>
      </div>
      <Dialog alert title={`Delete ${app.id}?`} open={open} onClose={() => setOpen(false)}>
        <p>
          <strong>Goes:</strong> the history and every release on server {app.server}, also what is live.
        </p>
        <p>
          <strong>Stays:</strong> the repository <Text>{app.repositoryFullName}</Text> on Bitbucket. Its webhook is
          removed when no other app needs it.
        </p>
        {remove.isError && <Failed error={remove.error} title="Not deleted." />}
        <div className="actions end">
          <Button autoFocus onClick={() => setOpen(false)}>
            Keep it
          </Button>
          <Button look="danger" busy={remove.isPending} onClick={() => remove.mutate()}>
            {remove.isPending ? "Deleting…" : `Delete ${app.id}`}
          </Button>
        </div>
      </Dialog>
    </section>
  );
}
