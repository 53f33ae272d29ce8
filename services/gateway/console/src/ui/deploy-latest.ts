import { useMutation } from "@tanstack/react-query";
import { api, body, requestId } from "../api/client";
import { usePlace } from "../lib/workspace";
import { useStarted } from "./started";

/** Has the newest commit of an app's branch deployed, and goes to the deployment. */
export function useDeployLatest() {
  const { ws } = usePlace();
  const started = useStarted();
  return useMutation({
    mutationFn: async ({ app, branch }: { app: string; branch?: string | undefined }) =>
      body(
        await api.POST("/v1/workspaces/{workspace}/apps/{app}/deployments", {
          params: { path: { workspace: ws, app } },
          body: { requestId: requestId(), ...(branch === undefined ? {} : { branch }) },
        }),
      ),
    onSuccess: started,
  });
}
