import { useId, useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "react-router";
import { api, asApiError, body, type App, type AppPatch } from "../api/client";
import { appQuery, keys, serversQuery, webhookQuery } from "../api/queries";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Text } from "./basics";
import { BranchSelect } from "./branches";
import { Dialog } from "./dialog";
import { Switch } from "./switch";
import { ManualSteps } from "./webhook";

export default function AppSettings({ app }: { app: App }) {
  // A save or somebody else's change makes another etag: the form then shows what is there.
  return (
    <>
      <Edit key={app.etag} app={app} />
      <Manual app={app} />
      <Delete app={app} />
    </>
  );
}

function Edit({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const servers = useQuery(serversQuery);
  const ids = useId();
  const [branch, setBranch] = useState(app.branch);
  const [autoDeploy, setAutoDeploy] = useState(app.autoDeploy);
  const [server, setServer] = useState(app.server);
  const [retention, setRetention] = useState(String(app.retention));
  const save = useMutation({
    mutationFn: async () => {
      const patch: AppPatch = { branch, autoDeploy, server, retention: Number(retention), etag: app.etag };
      return body(await api.PATCH("/v1/workspaces/{workspace}/apps/{app}", { params: { path: { workspace: ws, app: app.id } }, body: patch }));
    },
    onSuccess: (fresh) => client.setQueryData(appQuery(ws, app.id).queryKey, fresh),
    onError: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "app") }),
  });
  const refused = save.isError ? asApiError(save.error) : undefined;
  const badRetention = /^(100|[1-9]?[0-9])$/.test(retention) ? refused?.field("retention") : "A whole number from 0 to 100.";
  const changed = branch !== app.branch || autoDeploy !== app.autoDeploy || server !== app.server || retention !== String(app.retention);
  return (
    <form
      className="form"
      noValidate
      onSubmit={(e) => {
        e.preventDefault();
        if (adminOnly === undefined && changed && badRetention === undefined) save.mutate();
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
        <BranchSelect repository={app.repository} value={branch} onChange={setBranch} error={refused?.field("branch")} disabled={adminOnly !== undefined} />
        <Switch selected={autoDeploy} onChange={setAutoDeploy} disabled={adminOnly !== undefined}>
          Deploy on every push
        </Switch>
      </fieldset>
      <fieldset>
        <legend>Where</legend>
        {(servers.data?.servers.length ?? 0) > 1 && (
          <div className="field">
            <label htmlFor={`${ids}-s`}>Server</label>
            <select id={`${ids}-s`} value={server} onChange={(e) => setServer(e.target.value)}>
              {servers.data?.servers.map((s) => (
                <option key={s.id} value={s.id}>
                  {s.id}
                </option>
              ))}
            </select>
          </div>
        )}
        <div className="field">
          <label htmlFor={`${ids}-r`}>Releases to keep</label>
          <input id={`${ids}-r`} className="short" inputMode="numeric" value={retention} aria-invalid={badRetention !== undefined || undefined} aria-describedby={`${ids}-r-d`} onChange={(e) => setRetention(e.target.value)} />
          <div id={`${ids}-r-d`} className={badRetention === undefined ? "soft" : "field-error"}>
            {badRetention ?? "Beside the live one."}
          </div>
        </div>
      </fieldset>
      {save.isError && <Failed error={save.error} workspace={ws} title="Nothing was changed." />}
      <div className="actions end">
        <span role="status" className="soft">
          {changed ? "Neither another branch nor the switch deploys by itself." : "Nothing to save."}
        </span>
        <Button type="submit" look="primary" forbidden={adminOnly} busy={save.isPending}>
          {save.isPending ? "Saving…" : "Save"}
        </Button>
      </div>
    </form>
  );
}

function Manual({ app }: { app: App }) {
  const { ws } = usePlace();
  const id = app.webhook?.id ?? "";
  const webhook = useQuery({ ...webhookQuery(ws, id), enabled: id !== "" });
  if (webhook.data === undefined || webhook.data.state !== "MANUAL") return null;
  return <ManualSteps webhook={webhook.data} />;
}

function Delete({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const navigate = useNavigate();
  const [open, setOpen] = useState(false);
  const remove = useMutation({
    mutationFn: async () => body(await api.DELETE("/v1/workspaces/{workspace}/apps/{app}", { params: { path: { workspace: ws, app: app.id }, query: { etag: app.etag } } })),
    onSuccess: async () => {
      await navigate(`/w/${ws}/apps`);
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
          <strong>Stays:</strong> the repository <Text>{app.repositoryFullName}</Text> on Bitbucket. Its webhook is removed when no other app needs it.
        </p>
        {remove.isError && <Failed error={remove.error} title="It was not deleted." />}
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
