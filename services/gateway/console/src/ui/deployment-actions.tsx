import { useState } from "react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "react-router";
import { api, body, requestId, type App, type Deployment } from "../api/client";
import { deploymentQuery, keys } from "../api/queries";
import { shortHash } from "../lib/text";
import { ended } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Text } from "./basics";
import { Dialog } from "./dialog";

/** Goes to a deployment that was just made. */
function useStarted(app: string) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const navigate = useNavigate();
  return (d: Deployment) => {
    client.setQueryData(deploymentQuery(ws, app, d.number).queryKey, d);
    void client.invalidateQueries({ queryKey: keys.kind(ws, "deployment") });
    void client.invalidateQueries({ queryKey: keys.kind(ws, "app") });
    void navigate(`/w/${ws}/apps/${app}/deployments/${d.number}`);
  };
}

/** Deploys the newest commit of the branch. */
export function DeployLatest({ app, look = "primary" }: { app: App; look?: "primary" | "plain" }) {
  const { ws } = usePlace();
  const started = useStarted(app.id);
  const deploy = useMutation({
    mutationFn: async () =>
      body(await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", { params: { path: { workspace: ws, app: app.id } }, body: { requestId: requestId() } })),
    onSuccess: started,
  });
  return (
    <>
      {deploy.isError && <Failed error={deploy.error} workspace={ws} title="Nothing was deployed." />}
      <Button look={look} busy={deploy.isPending} onClick={() => deploy.mutate()} title={`Deploys the newest commit of ${app.branch}`}>
        {deploy.isPending ? "Starting…" : "Deploy latest"}
      </Button>
    </>
  );
}

/** What can be done with one deployment: cancel it while it runs; afterwards take its commit or its release again. */
export function DeploymentActions({ d, app }: { d: Deployment; app: App | undefined }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const started = useStarted(d.app);
  const [rolling, setRolling] = useState(false);
  const params = { path: { workspace: ws, app: d.app, number: d.number } };
  const cancel = useMutation({
    mutationFn: async () => body(await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}:cancel", { params, body: {} })),
    onSuccess: (fresh) => client.setQueryData(deploymentQuery(ws, d.app, d.number).queryKey, fresh),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "deployment") }),
  });
  const redeploy = useMutation({
    mutationFn: async () => body(await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}:redeploy", { params, body: { requestId: requestId() } })),
    onSuccess: started,
  });
  const over = ended(d.state);
  const hash = shortHash(d.commit?.hash);
  const cancelling = d.cancelTime !== undefined || cancel.isPending;
  return (
    <>
      {cancel.isError && <Failed error={cancel.error} workspace={ws} title="It was not cancelled." />}
      {redeploy.isError && <Failed error={redeploy.error} workspace={ws} title="Nothing was deployed." />}
      {!over && (
        <Button look="danger" busy={cancelling} onClick={() => cancel.mutate()} title="Stops this deployment. What is live stays live.">
          {cancelling ? "Cancelling…" : "Cancel"}
        </Button>
      )}
      {over && d.state === "COMPLETED" && d.releaseKept && !d.live && (
        <Button onClick={() => setRolling(true)} title={`Makes the release of #${d.number} live again`}>
          Rollback to #{d.number}…
        </Button>
      )}
      {over && hash !== "" && (
        <Button busy={redeploy.isPending} onClick={() => redeploy.mutate()} title={`Deploys commit ${hash} again, as a new deployment`}>
          {redeploy.isPending ? (
            "Starting…"
          ) : (
            <>
              Redeploy <code>{hash}</code>
            </>
          )}
        </Button>
      )}
      {over && app !== undefined && (
        <span className="apart">
          <DeployLatest app={app} look={d.state === "FAILED" ? "primary" : "plain"} />
        </span>
      )}
      {rolling && <RollbackDialog d={d} app={app} onClose={() => setRolling(false)} />}
    </>
  );
}

function RollbackDialog({ d, app, onClose }: { d: Deployment; app: App | undefined; onClose: () => void }) {
  const { ws, adminOnly } = usePlace();
  const started = useStarted(d.app);
  const on = app?.autoDeploy === true;
  const [pause, setPause] = useState(on && adminOnly === undefined);
  const rollback = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/apps/{app}:rollback", {
          params: { path: { workspace: ws, app: d.app } },
          body: { deployment: d.number, pauseAutoDeploy: on && pause, requestId: requestId() },
        }),
      ),
    onSuccess: started,
  });
  const live = app?.live;
  return (
    <Dialog alert title={`Rollback to #${d.number}?`} open onClose={onClose}>
      <p>
        The kept release of #{d.number} (<code>{shortHash(d.commit?.hash)}</code>) goes live again as a deployment of its own
        {live !== undefined && (
          <>
            , in place of #{live.number} (<code>{shortHash(live.commit?.hash)}</code>)
          </>
        )}
        . Nothing is fetched, and the repository stays as it is.
      </p>
      {on && (
        <>
          <label className="check block">
            <input type="checkbox" checked={pause} disabled={adminOnly !== undefined} onChange={(e) => setPause(e.target.checked)} /> Switch auto-deploy off
          </label>
          <p className="soft">
            {adminOnly ??
              (pause ? (
                "Pushes do not deploy until somebody switches it on again."
              ) : (
                <>
                  The next push to <Text>{app.branch}</Text> deploys and ends the rollback.
                </>
              ))}
          </p>
        </>
      )}
      {rollback.isError && <Failed error={rollback.error} workspace={ws} title="What is live stays live." />}
      <div className="actions end">
        <Button autoFocus onClick={onClose}>
          Keep what is live
        </Button>
        <Button look="primary" busy={rollback.isPending} onClick={() => rollback.mutate()}>
          {rollback.isPending ? "Starting…" : `Rollback to #${d.number}`}
        </Button>
      </div>
    </Dialog>
  );
}
