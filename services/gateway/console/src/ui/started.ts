import { useRef } from "react";
import { useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "react-router";
import { asApiError, requestId, type Deployment } from "../api/client";
import { deploymentQuery, keys } from "../api/queries";
import { usePlace } from "../lib/workspace";

/** Where the visitor is when something begins: who has gone elsewhere meanwhile is not fetched back. */
export const here = () => location.pathname;

/** Goes to a deployment that was just made, from the page where that began. */
export function useStarted() {
  const { ws } = usePlace();
  const client = useQueryClient();
  const navigate = useNavigate();
  return (d: Deployment, from: string | undefined) => {
    client.setQueryData(deploymentQuery(ws, d.app, d.number).queryKey, d);
    void client.invalidateQueries({ queryKey: keys.kind(ws, "deployment") });
    void client.invalidateQueries({ queryKey: keys.kind(ws, "app") });
    if (from === here()) void navigate(`/w/${ws}/apps/${d.app}/deployments/${d.number}`);
  };
}

/**
 * Gives what is sent an id that makes a repeat harmless: as long as nobody knows whether it was done, a repeat of the
 * same has the same id.
 */
export function useOnce() {
  const open = useRef<{ what: string; id: string }>(undefined);
  return async <T>(what: string, send: (id: string) => Promise<T>): Promise<T> => {
    if (open.current?.what !== what) open.current = { what, id: requestId() };
    try {
      const answer = await send(open.current.id);
      open.current = undefined;
      return answer;
    } catch (e) {
      const { status } = asApiError(e);
      if (status !== 0 && status < 500) open.current = undefined; // refused: it was not done
      throw e;
    }
  };
}
