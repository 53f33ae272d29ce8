import { useState } from "react";
import { useMutation } from "@tanstack/react-query";
import { api, body, type Delivery } from "../api/client";
import { useNow } from "../lib/clock";
import { bodyDays, bodyGone } from "../lib/deliveries";
import { safe } from "../lib/text";
import { usePlace } from "../lib/workspace";
import { Button, Copy, Failed, Skeleton, Time } from "./basics";
import { Dialog } from "./dialog";

/** The body as Bitbucket sent it, for admins while it is kept. It is asked for each time and kept nowhere. */
export function DeliveryBody({ delivery: d }: { delivery: Delivery }) {
  const { ws, adminOnly } = usePlace();
  const now = useNow(60_000).getTime();
  const [open, setOpen] = useState(false);
  const reveal = useMutation({
    mutationFn: async () =>
      body(
        await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}/deliveries/{delivery}:revealBody", {
          params: { path: { workspace: ws, webhook: d.webhook, delivery: d.number } },
          body: {},
        }),
      ),
    gcTime: 0,
  });
  const gone = bodyGone(d.receiveTime, now) ? `Bodies of deliveries are kept for ${bodyDays} days.` : undefined;
  return (
    <>
      <Button
        className="small"
        forbidden={adminOnly ?? gone}
        title="Shows what Bitbucket sent; noted under Activity"
        onClick={() => {
          setOpen(true);
          reveal.mutate();
        }}
      >
        Body<span className="hidden"> of delivery {d.number}</span>
      </Button>
      <Dialog title={`The body of delivery ${d.number}`} open={open} onClose={() => setOpen(false)}>
        {reveal.isPending ? (
          <Skeleton rows={4} />
        ) : reveal.isError ? (
          <Failed error={reveal.error} workspace={ws} title="The body is not shown." />
        ) : (
          reveal.data !== undefined && (
            <>
              <p className="soft">
                As Bitbucket sent it
                {reveal.data.expireTime !== undefined && (
                  <>
                    , kept until <Time at={reveal.data.expireTime} style="clock" />
                  </>
                )}
                . That you saw it is noted under Activity.
              </p>
              {/* It scrolls, so a keyboard must reach it. */}
              {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
              <pre className="raw" tabIndex={0} aria-label={`The body of delivery ${d.number}`} role="region">
                {safe(pretty(reveal.data.body))}
              </pre>
              <Copy text={reveal.data.body} what="the body" />
            </>
          )
        )}
        <div className="actions end">
          <Button autoFocus onClick={() => setOpen(false)}>
            Close
          </Button>
        </div>
      </Dialog>
    </>
  );
}

/** JSON in lines; what is none as it is. */
function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), undefined, 2);
  } catch {
    return text;
  }
}
