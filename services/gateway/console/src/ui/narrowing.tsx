import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asApiError, body, type Integration } from "../api/client";
import { integrationQuery, keys } from "../api/queries";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Skeleton, Text } from "./basics";
import { Moved } from "./settings/parts";
import { useDraft } from "./settings/save";

/** Which Bitbucket workspaces this workspace sees and deploys: all, or those that an admin ticks. */
export function Narrowing({ integration: i }: { integration: Integration }) {
  const { adminOnly } = usePlace();
  const [open, setOpen] = useState(false);
  const names = i.narrowedTo.map((w) => w.name || w.id);
  return (
    <section aria-labelledby="narrowing">
      <h4 id="narrowing">Bitbucket workspaces</h4>
      <p>
        {names.length === 0 ? (
          "All that the account reaches are seen and deployed."
        ) : (
          <>
            Only <Text>{names.join(", ")}</Text>: nothing else is listed or deployed, and no token is handed out for it.
          </>
        )}
      </p>
      {open ? (
        <Choice integration={i} onClose={() => setOpen(false)} />
      ) : (
        <div className="actions">
          <Button forbidden={adminOnly} onClick={() => setOpen(true)}>
            {names.length === 0 ? "Narrow…" : "Change…"}
          </Button>
        </div>
      )}
    </section>
  );
}

function Choice({ integration: i, onClose }: { integration: Integration; onClose: () => void }) {
  const { ws } = usePlace();
  const client = useQueryClient();
  const there = useQuery({
    queryKey: [...keys.kind(ws, "integration"), "bitbucketWorkspaces"],
    queryFn: async ({ signal }) =>
      body(
        await api.GET("/v1/workspaces/{workspace}/bitbucketWorkspaces", {
          params: { path: { workspace: ws } },
          signal,
        }),
      ).bitbucketWorkspaces,
  });
  const draft = useDraft(i.narrowedTo.map((w) => w.id).sort());
  const chosen = new Set(draft.draft);
  const save = useMutation({
    mutationFn: async (list: { id: string; name: string }[]) =>
      body(
        await api.POST("/v1/workspaces/{workspace}/integrations/bitbucket:narrow", {
          params: { path: { workspace: ws } },
          body: { bitbucketWorkspaces: list, etag: i.etag ?? "" },
        }),
      ),
    onSuccess: (fresh) => {
      client.setQueryData(integrationQuery(ws).queryKey, fresh);
      void client.invalidateQueries({ queryKey: keys.kind(ws, "app") });
      onClose();
    },
    onError: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "integration") }),
  });
  if (there.isPending) return <Skeleton rows={3} />;
  if (there.isError) return <Failed error={there.error} workspace={ws} retry={() => void there.refetch()} />;
  // One that the account left stays on the list, so that it can be taken off.
  const all = [
    ...there.data.map((w) => ({ id: w.id, name: w.slug })),
    ...i.narrowedTo
      .filter((w) => !there.data.some((t) => t.id === w.id))
      .map((w) => ({ id: w.id, name: w.name || w.id })),
  ];
  return (
    <form
      onSubmit={(e) => {
        e.preventDefault();
        save.mutate(all.filter((w) => chosen.has(w.id)));
      }}
    >
      <fieldset className="plain">
        <legend>Tick those to see and deploy. None ticked: all.</legend>
        {all.map((w) => (
          <label key={w.id} className="check">
            <input
              type="checkbox"
              checked={chosen.has(w.id)}
              onChange={(e) => {
                const next = new Set(chosen);
                if (e.target.checked) next.add(w.id);
                else next.delete(w.id);
                draft.set([...next].sort());
              }}
            />
            <Text>{w.name}</Text>
          </label>
        ))}
      </fieldset>
      <p className="soft">
        Apps of other Bitbucket workspaces stay live and stop deploying; they go on by themselves when their workspace
        is ticked again.
      </p>
      <Moved draft={draft} />
      {save.isError && <Failed error={asApiError(save.error)} title="Nothing was changed." />}
      <div className="actions end">
        <Button onClick={onClose}>Cancel</Button>
        <Button look="primary" type="submit" busy={save.isPending}>
          Save
        </Button>
      </div>
    </form>
  );
}
