import { useMutation } from "@tanstack/react-query";
import { api, body } from "../api/client";
import { usePlace } from "../lib/workspace";
import { here, useOnce, useStarted } from "./started";

/** What is deployed of an app: the latest commit of its branch where nothing is named. */
interface Wanted {
  app: string;
  branch?: string;
  commit?: string;
  tag?: string;
  pauseAutoDeploy?: boolean;
}

/** Has something of an app's repository deployed, and goes to the deployment. */
export function useDeploy() {
  const { ws } = usePlace();
  const started = useStarted();
  const once = useOnce();
  return useMutation({
    onMutate: here,
    mutationFn: ({ app, ...what }: Wanted) =>
      once(`${ws} ${app} ${JSON.stringify(what)}`, async (requestId) =>
        body(
          await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", {
            params: { path: { workspace: ws, app } },
            body: { requestId, ...what },
          }),
        ),
      ),
    onSuccess: (d, _, from) => started(d, from),
  });
}

/** Has the commit of a deployment deployed again, and goes to the new deployment. */
export function useRedeploy(app: string, number: number) {
  const { ws } = usePlace();
  const started = useStarted();
  const once = useOnce();
  return useMutation({
    onMutate: here,
    mutationFn: () =>
      once(`${ws} ${app} ${number}`, async (requestId) =>
        body(
          await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments/{number}:redeploy", {
            params: { path: { workspace: ws, app, number } },
            body: { requestId },
          }),
        ),
      ),
    onSuccess: (d, _, from) => started(d, from),
  });
}
