import { useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useParams } from "react-router";
import { api, asApiError, body, type DeletionPreview, type Workspace } from "../api/client";
import { keys, meQuery } from "../api/queries";
import { know } from "../api/workspaces";
import { leaves } from "../lib/leaving";
import { goesWith, sameName } from "../lib/deletion";
import { Button, Failed, Said, Skeleton, Text } from "./basics";
import { Dialog } from "./dialog";
import { TextField } from "./settings/parts";
import { here } from "./started";

/** Says what goes with a workspace, and deletes it once its name was typed. */
export function DeleteWorkspace({ workspace: w, onClose }: { workspace: Workspace; onClose: () => void }) {
  const { ws } = useParams();
  const client = useQueryClient();
  const navigate = useNavigate();
  const [typed, setTyped] = useState("");
  const preview = useQuery({
    queryKey: [...keys.kind(w.id, "deletion")],
    queryFn: async ({ signal }) =>
      body(await api.GET("/v1/workspaces/{workspace}/deletion", { params: { path: { workspace: w.id } }, signal })),
    staleTime: 0,
    gcTime: 0,
  });
  const remove = useMutation({
    onMutate: here,
    mutationFn: async () =>
      body(
        await api.DELETE("/v1/workspaces/{workspace}", {
          params: { path: { workspace: w.id }, query: { etag: preview.data?.etag } },
        }),
      ),
    onSuccess: async (deleted, _, from) => {
      onClose();
      know(client, deleted); // before the way there: "/" leads to a workspace that is open
      if (w.id === ws && from === here()) {
        const other = client
          .getQueryData(meQuery.queryKey)
          ?.workspaces.find((o) => o.id !== ws && o.state === "ACTIVE");
        await navigate(other === undefined ? "/" : `/w/${other.id}/settings/workspaces`, { state: leaves });
      }
      client.removeQueries({ queryKey: keys.workspace(w.id) });
    },
    onError: (e) => {
      if (asApiError(e).reason === "ETAG_MISMATCH") void preview.refetch();
      void client.invalidateQueries({ queryKey: meQuery.queryKey });
    },
  });
  const why =
    preview.data === undefined
      ? "What goes is not known yet."
      : sameName(typed, w.displayName)
        ? undefined
        : `Type ${w.displayName} first.`;
  return (
    <Dialog alert open title={`Delete ${w.displayName}?`} onClose={onClose}>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          if (why === undefined && !remove.isPending) remove.mutate();
        }}
      >
        {preview.data !== undefined ? (
          <Preview preview={preview.data} />
        ) : preview.isError ? (
          <Failed
            error={preview.error}
            title="What goes could not be read, and nothing was deleted."
            retry={() => void preview.refetch()}
          />
        ) : (
          <Skeleton rows={6} />
        )}
        <p>
          <strong>Stays:</strong> the repositories on Bitbucket. It cannot be undone, and the id <code>{w.id}</code> is
          not given out again.
        </p>
        <TextField
          label={`Type ${w.displayName} to delete it`}
          autoFocus
          value={typed}
          onChange={setTyped}
          hint="As it is written in the title."
        />
        {remove.isError && <Failed error={remove.error} title="Nothing was deleted." />}
        <div className="actions end">
          <Button onClick={onClose}>Keep it</Button>
          <Button look="danger" type="submit" forbidden={why} busy={remove.isPending}>
            {remove.isPending ? "Deleting…" : "Delete the workspace"}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function Preview({ preview: p }: { preview: DeletionPreview }) {
  const staying = p.webhooks.filter((h) => h.stays !== undefined);
  return (
    <>
      <p>
        <strong>Goes, for good:</strong>
      </p>
      <ul className="links" aria-label="What goes">
        {goesWith(p).map((line) => (
          <li key={line}>
            <Text>{line}</Text>
          </li>
        ))}
      </ul>
      {staying.length > 0 && (
        <>
          <p>
            <strong>Cannot be removed</strong> from Bitbucket; it does nothing any more:
          </p>
          <ul className="links" aria-label="What cannot be removed">
            {staying.map((h) => (
              <li key={h.repositoryFullName}>
                The webhook of <Text>{h.repositoryFullName}</Text>. <Said>{h.stays}</Said>
              </li>
            ))}
          </ul>
        </>
      )}
      {p.unknown.map((sentence) => (
        <p key={sentence} className="soft">
          <Said>{sentence}</Said> It goes all the same.
        </p>
      ))}
    </>
  );
}
