import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, body, type App, type AppPatch } from "../../api/client";
import { appQuery, keys } from "../../api/queries";
import { merged, same } from "../../lib/draft";
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
 * A draft of something that others may change too. Each part that is untouched follows what is there; one that
 * was touched is kept, and `moved` says that what is there became another.
 */
export function useDraft<T>(there: T): {
  draft: T;
  set: (value: T) => void;
  changed: boolean;
  moved: boolean;
  reset: () => void;
} {
  const [base, setBase] = useState(there);
  const [draft, setDraft] = useState(there);
  const next = merged(base, draft, there);
  if (!same(next.base, base) || !same(next.draft, draft)) {
    setBase(next.base);
    setDraft(next.draft);
  }
  return {
    draft: next.draft,
    set: setDraft,
    changed: !same(next.draft, next.base),
    moved: !same(next.base, there),
    reset: () => {
      setBase(there);
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
