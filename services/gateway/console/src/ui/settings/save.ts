import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, body, type App, type AppPatch } from "../../api/client";
import { appQuery, keys } from "../../api/queries";
import { usePlace } from "../../lib/workspace";

/** Saves a part of the app, if nobody changed the app meanwhile. */
export function useSave(app: App) {
  const { ws } = usePlace();
  const client = useQueryClient();
  return useMutation({
    mutationFn: async (patch: AppPatch) =>
      body(
        await api.PATCH("/v1/workspaces/{workspace}/apps/{app}", {
          params: { path: { workspace: ws, app: app.id } },
          body: { ...patch, etag: app.etag },
        }),
      ),
    onSuccess: (fresh) => client.setQueryData(appQuery(ws, app.id).queryKey, fresh),
    onError: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "app") }),
  });
}

/**
 * A draft of something that others may change too. Untouched, it follows what is there; touched, it
 * is kept and `moved` says that what is there became another.
 */
export function useDraft<T>(there: T): {
  draft: T;
  set: (value: T) => void;
  changed: boolean;
  moved: boolean;
  reset: () => void;
} {
  const text = JSON.stringify(there);
  const [base, setBase] = useState(text);
  const [draft, setDraft] = useState(there);
  const changed = JSON.stringify(draft) !== base;
  if (text !== base && (!changed || JSON.stringify(draft) === text)) {
    setBase(text);
    setDraft(there);
  }
  return {
    draft,
    set: setDraft,
    changed,
    moved: text !== base && changed,
    reset: () => {
      setBase(text);
      setDraft(there);
    },
  };
}

/** One entry a line; empty lines do not count. */
export function lines(text: string): string[] {
  return text
    .split("\n")
    .map((l) => l.trim())
    .filter((l) => l !== "");
}
