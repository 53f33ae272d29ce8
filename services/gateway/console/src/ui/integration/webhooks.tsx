import { useInfiniteQuery } from "@tanstack/react-query";
import type { Webhook } from "../../api/client";
import { webhooksByHealthQuery } from "../../api/queries";
import { healthLook } from "../../lib/words";
import { usePlace } from "../../lib/workspace";
import { Button, Failed, More, Said, Skeleton, Status, Time } from "../basics";
import { blocked, mendWord, useMend } from "../use-mend";
import { WebhookLink } from "./left";

const needed = (w: Webhook) => w.health !== undefined;

/** The webhooks that apps need, those first that need somebody. */
export function Webhooks() {
  const { ws } = usePlace();
  const list = useInfiniteQuery(webhooksByHealthQuery(ws));
  const all = (list.data?.pages.flatMap((p) => p.webhooks) ?? []).filter(needed);
  if (list.isSuccess && all.length === 0) return null;
  return (
    <section className="card" aria-labelledby="webhooks">
      <h3 id="webhooks">Webhooks</h3>
      {list.isPending ? (
        <Skeleton rows={2} />
      ) : list.isError && all.length === 0 ? (
        <Failed error={list.error} workspace={ws} retry={() => void list.refetch()} />
      ) : (
        <>
          <ul className="rows" aria-labelledby="webhooks">
            {all.map((w) => (
              <Row key={w.id} webhook={w} />
            ))}
          </ul>
          <More query={list} />
        </>
      )}
    </section>
  );
}

function Row({ webhook: w }: { webhook: Webhook }) {
  const { ws, adminOnly } = usePlace();
  const mend = useMend(w);
  const well = w.health === "REGISTERED";
  return (
    <li>
      <div className="grow">
        <div>
          <Status look={healthLook(w)} /> <WebhookLink webhook={w} />{" "}
          <span className="soft nowrap">
            {!well && w.healthTime !== undefined ? (
              <>
                since <Time at={w.healthTime} />
              </>
            ) : w.lastVerifiedTime !== undefined ? (
              <>
                last verified delivery <Time at={w.lastVerifiedTime} />
              </>
            ) : (
              "no delivery yet"
            )}
          </span>
        </div>
        {w.healthMessage !== undefined && (
          <div>
            <Said>{w.healthMessage}</Said>
          </div>
        )}
        {w.lastRepair !== undefined && (
          <div className="soft">
            <Said>{w.lastRepair}</Said> <Time at={w.lastRepairTime} />
          </div>
        )}
        {mend.isError && <Failed error={mend.error} workspace={ws} title="The webhook is as it was." />}
        <p role="status" className={mend.isSuccess ? "tone-good" : "hidden"}>
          {mend.isSuccess && mend.data.healthMessage === undefined && "The webhook is as it should be on Bitbucket."}
        </p>
      </div>
      {!well && !blocked(w) && (
        <Button className="small" forbidden={adminOnly} busy={mend.isPending} onClick={() => mend.mutate()}>
          {mendWord(w, mend.isPending)}
          <span className="hidden"> the webhook of {w.repositoryFullName}</span>
        </Button>
      )}
    </li>
  );
}
