import { useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "react-router";
import type { Deployment } from "../api/client";
import { deploymentQuery, keys } from "../api/queries";
import { usePlace } from "../lib/workspace";

/** Goes to a deployment that was just made. */
export function useStarted() {
  const { ws } = usePlace();
  const client = useQueryClient();
  const navigate = useNavigate();
  return (d: Deployment) => {
    client.setQueryData(deploymentQuery(ws, d.app, d.number).queryKey, d);
    void client.invalidateQueries({ queryKey: keys.kind(ws, "deployment") });
    void client.invalidateQueries({ queryKey: keys.kind(ws, "app") });
    void navigate(`/w/${ws}/apps/${d.app}/deployments/${d.number}`);
  };
}
