import { useState } from "react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, body, type App, type Deployment } from "../api/client";
import { deploymentQuery, keys } from "../api/queries";
import { isPattern, shortHash } from "../lib/text";
import { ended } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Button, Failed } from "./basics";
import { later } from "./later";
import { RollbackDialog } from "./rollback";
import { useDeploy, useRedeploy } from "./deploy-latest";

const DeployBranch = later(() => import("./deploy-branch"));
const DeployChoice = later(() => import("./deploy-choice"));

/** Asks what to deploy: the latest commit, another one, or a tag. */
export function Deploy({ app }: { app: App }) {
  const [choosing, setChoosing] = useState(false);
  return (
    <>
      <Button onClick={() => setChoosing(true)} title="Deploys a commit or a tag that you choose">
        Deploy…
      </Button>
      {choosing && <DeployChoice app={app} onClose={() => setChoosing(false)} />}
    </>
  );
}

/** Deploys the newest commit of the branch; where a pattern is watched, of one of its branches: which one is asked. */
export function DeployLatest({
  app,
  look = "primary",
  branch,
}: {
  app: App;
  look?: "primary" | "plain";
  branch?: string;
}) {
  const { ws } = usePlace();
  const [choosing, setChoosing] = useState(false);
  const deploy = useDeploy();
  if (isPattern(app.branch)) {
    return (
      <>
        <Button
          look={look}
          onClick={() => {
            deploy.reset();
            setChoosing(true);
          }}
          title={`Deploys the newest commit of a branch that matches ${app.branch}`}
        >
          Deploy latest…
        </Button>
        {choosing && (
          <DeployBranch
            app={app}
            branch={branch}
            busy={deploy.isPending}
            refused={deploy.isError ? deploy.error : undefined}
            onDeploy={(b) => deploy.mutate({ app: app.id, branch: b }, { onSuccess: () => setChoosing(false) })}
            onClose={() => setChoosing(false)}
          />
        )}
      </>
    );
  }
  return (
    <>
      {deploy.isError && <Failed error={deploy.error} workspace={ws} title="Nothing was deployed." />}
      <Button
        look={look}
        busy={deploy.isPending}
        onClick={() => deploy.mutate({ app: app.id })}
        title={`Deploys the newest commit of ${app.branch}`}
      >
        {deploy.isPending ? "Starting…" : "Deploy latest"}
      </Button>
    </>
  );
}

/** What can be done with one deployment: cancel it while it runs; afterwards take its commit or its release again. */
export function DeploymentActions({ d, app }: { d: Deployment; app: App | undefined }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const [rolling, setRolling] = useState(false);
  const params = { path: { workspace: ws, app: d.app, number: d.number } };
  const cancel = useMutation({
    mutationFn: async () =>
      body(await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}:cancel", { params, body: {} })),
    onSuccess: (fresh) => client.setQueryData(deploymentQuery(ws, d.app, d.number).queryKey, fresh),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "deployment") }),
  });
  const redeploy = useRedeploy(d.app, d.number);
  const over = ended(d.state);
  const hash = shortHash(d.commit?.hash);
  const cancelling = d.cancelTime !== undefined || cancel.isPending;
  return (
    <>
      {cancel.isError && <Failed error={cancel.error} workspace={ws} title="Not cancelled." />}
      {redeploy.isError && <Failed error={redeploy.error} workspace={ws} title="Nothing was deployed." />}
      {!over && (
        <Button
          look="danger"
          busy={cancelling}
          onClick={() => cancel.mutate()}
          title="Stops this deployment. What is live stays live."
        >
          {cancelling ? "Cancelling…" : "Cancel"}
        </Button>
      )}
      {over && d.state === "COMPLETED" && d.releaseKept && !d.live && (
        <Button onClick={() => setRolling(true)} title={`Makes the release of #${d.number} live again`}>
          Rollback to #{d.number}…
        </Button>
      )}
      {over && hash !== "" && (
        <Button
          busy={redeploy.isPending}
          onClick={() => redeploy.mutate()}
          title={`Deploys commit ${hash} again, as a new deployment`}
        >
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
          <DeployLatest app={app} look={d.state === "FAILED" ? "primary" : "plain"} branch={d.branch} />
        </span>
      )}
      {rolling && <RollbackDialog d={d} app={app} onClose={() => setRolling(false)} />}
    </>
  );
}
