import { useState } from "react";
import { useInfiniteQuery, useMutation } from "@tanstack/react-query";
import { api, body, type App, type Deployment } from "../api/client";
import { deploymentsQuery } from "../api/queries";
import { shortHash } from "../lib/text";
import { watched } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Text } from "./basics";
import { Dialog } from "./dialog";
import { here, useOnce, useStarted } from "./started";

/** The way back from a deployment that failed when its release was live already: to the one before it. */
export function RollbackPrevious({ d, app }: { d: Deployment; app: App | undefined }) {
  const { ws } = usePlace();
  const [rolling, setRolling] = useState(false);
  const list = useInfiniteQuery(deploymentsQuery(ws, d.app, { state: "COMPLETED" }, 10));
  const before = list.data?.pages
    .flatMap((p) => p.deployments)
    .find((x) => x.number < d.number && x.releaseKept && !x.live);
  if (before === undefined) return null;
  return (
    <div className="actions">
      <Button onClick={() => setRolling(true)} title={`Makes the release of #${before.number} live again`}>
        Rollback to #{before.number}…
      </Button>
      {rolling && <RollbackDialog d={before} app={app} onClose={() => setRolling(false)} />}
    </div>
  );
}

/** Says what a rollback does, and to auto-deploy, and does it. */
export function RollbackDialog({ d, app, onClose }: { d: Deployment; app: App | undefined; onClose: () => void }) {
  const { ws, adminOnly } = usePlace();
  const started = useStarted();
  const once = useOnce();
  const on = app?.autoDeploy === true;
  const [pause, setPause] = useState(on && adminOnly === undefined);
  const rollback = useMutation({
    onMutate: here,
    mutationFn: () =>
      once(`${ws} ${d.app} ${d.number} ${on && pause}`, async (requestId) =>
        body(
          await api.POST("/v1/workspaces/{workspace}/apps/{app}:rollback", {
            params: { path: { workspace: ws, app: d.app } },
            body: { deployment: d.number, pauseAutoDeploy: on && pause, requestId },
          }),
        ),
      ),
    onSuccess: (answer, _, from) => {
      onClose();
      started(answer, from);
    },
  });
  const live = app?.live;
  return (
    <Dialog alert title={`Rollback to #${d.number}?`} open onClose={onClose}>
      <p>
        The kept release of #{d.number} (<code>{shortHash(d.commit?.hash)}</code>) goes live again as a deployment of
        its own
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
            <input
              type="checkbox"
              checked={pause}
              disabled={adminOnly !== undefined}
              onChange={(e) => setPause(e.target.checked)}
            />{" "}
            Switch auto-deploy off
          </label>
          <p className="soft">
            {adminOnly ??
              (pause ? (
                "Pushes do not deploy until somebody switches it on again."
              ) : (
                <>
                  The next push to <Text>{watched(app.branch)}</Text> deploys and ends the rollback.
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
