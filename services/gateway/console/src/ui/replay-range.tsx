import { useState } from "react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, body, requestId, type Delivery } from "../api/client";
import { keys } from "../api/queries";
import { rangeTrouble } from "../lib/deliveries";
import { usePlace } from "../lib/workspace";
import { Button, Failed, Text } from "./basics";
import { Dialog } from "./dialog";

/** Has several deliveries considered again, by their numbers. */
export function ReplayRange({ webhook, deliveries }: { webhook: string; deliveries: readonly Delivery[] }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const [open, setOpen] = useState(false);
  const [range, setRange] = useState({ first: "", last: "" });
  // One request however often it is sent: after an answer that was lost nothing is considered twice.
  const [request, setRequest] = useState(requestId);
  const first = Number(range.first);
  const last = Number(range.last);
  const trouble = rangeTrouble(first, last);
  const replay = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}/deliveries:replay", {
          params: { path: { workspace: ws, webhook } },
          body: { first, last, requestId: request },
        }),
      ),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "delivery") }),
  });
  const begin = () => {
    const own = deliveries.filter((d) => d.webhook === webhook).map((d) => d.number);
    const newest = Math.max(1, ...own);
    setRange({ first: String(Math.max(Math.min(newest, ...own), newest - 9)), last: String(newest) });
    setRequest(requestId());
    replay.reset();
    setOpen(true);
  };
  const set = (name: "first" | "last", value: string) => {
    setRange({ ...range, [name]: value });
    setRequest(requestId());
    replay.reset();
  };
  const skipped = replay.data?.skipped ?? [];
  return (
    <>
      <div className="actions">
        <Button className="small" forbidden={adminOnly} onClick={begin}>
          Replay several…
        </Button>
      </div>
      <Dialog title="Replay several deliveries" open={open} onClose={() => setOpen(false)}>
        <p>
          Each is considered again as if it came now, the oldest first, so that the newest of a branch is live in the
          end.
        </p>
        <form
          onSubmit={(e) => {
            e.preventDefault();
            if (trouble === undefined && !replay.isPending && !replay.isSuccess) replay.mutate();
          }}
        >
          <div className="filters fields">
            <label>
              First <input type="number" min={1} value={range.first} onChange={(e) => set("first", e.target.value)} />
            </label>
            <label>
              Last <input type="number" min={1} value={range.last} onChange={(e) => set("last", e.target.value)} />
            </label>
          </div>
          {trouble !== undefined && (
            <p role="status" className="tone-bad">
              {trouble}
            </p>
          )}
          {replay.isError && <Failed error={replay.error} workspace={ws} title="Not all were considered again." />}
          {replay.isSuccess && (
            <div role="status">
              <p className="tone-good">
                {replay.data.deliveries.length === 1
                  ? "One delivery is considered again"
                  : `${replay.data.deliveries.length} deliveries are considered again`}
                ; what comes of them is added to the list.
              </p>
              {skipped.length > 0 && (
                <ul className="soft">
                  {skipped.map((s) => (
                    <li key={s.delivery}>
                      Not {s.delivery}: <Text>{s.message}</Text>
                    </li>
                  ))}
                </ul>
              )}
            </div>
          )}
          <div className="actions end">
            <Button onClick={() => setOpen(false)}>{replay.isSuccess ? "Close" : "Cancel"}</Button>
            {!replay.isSuccess && (
              <Button type="submit" look="primary" busy={replay.isPending} forbidden={trouble}>
                {replay.isPending ? "Replaying…" : "Replay"}
              </Button>
            )}
          </div>
        </form>
      </Dialog>
    </>
  );
}
