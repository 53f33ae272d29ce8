import { useMutation } from "@tanstack/react-query";
import { api, body } from "../api/client";
import { usePlace } from "../lib/workspace";
import { here, useOnce, useStarted } from "./started";

/** Has the newest commit of an app's branch deployed, and goes to the deployment. */
export function useDeployLatest() {
  const { ws } = usePlace();
  const started = useStarted();
  const once = useOnce();
  return useMutation({
    onMutate: here,
    mutationFn: ({ app, branch }: { app: string; branch?: string | undefined }) =>
      once(`${ws} ${app} ${branch ?? ""}`, async (requestId) =>
        body(
          await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", {
            params: { path: { workspace: ws, app } },
            body: { requestId, ...(branch === undefined ? {} : { branch }) },
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
