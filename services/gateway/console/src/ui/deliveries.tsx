import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";
import type { App } from "../api/client";
import { appDeliveriesQuery, refusedQuery } from "../api/queries";
import { deliveryFilter, withinAbout } from "../lib/deliveries";
import { watched } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Failed, More, Said, Skeleton, Time } from "./basics";
import { DeliveryFilters } from "./delivery-filters";
import { DeliveryRow, useReplay } from "./delivery-row";
import { Icon } from "./icons";
import { ReplayRange } from "./replay-range";

/** What Bitbucket delivered, what Devpilot answered, and what came of it, in words. */
export function Deliveries({ app }: { app: App }) {
  const { ws } = usePlace();
  const replay = useReplay();
  const [params, setParams] = useSearchParams();
  const filter = deliveryFilter(params);
  const filtered = Object.keys(filter).length > 0;
  const set = (name: string, value: string) =>
    setParams(
      (old) => {
        if (value === "") old.delete(name);
        else old.set(name, value);
        return old;
      },
      { replace: true },
    );
  const found = withinAbout(app.webhook?.foundWithin);
  const list = useInfiniteQuery(appDeliveriesQuery(ws, app.id, filter));
  const hook = app.webhook?.id ?? "";
  const refused = useQuery({ ...refusedQuery(ws, hook), enabled: hook !== "" });
  const all = list.data?.pages.flatMap((p) => p.deliveries) ?? [];
  return (
    <>
      <div className="list-head">
        <p className="soft">Every push that Bitbucket told us about or that polling found, newest first.</p>
        {hook !== "" && all.length > 0 && <ReplayRange webhook={hook} deliveries={all} />}
      </div>
      {app.autoDeploy && app.webhook !== undefined && !["ACTIVE", "MANUAL"].includes(app.webhook.state ?? "") && (
        <p className="soft">Webhook missing: pushes are found by polling{found === "" ? "" : `, ${found}`}.</p>
      )}
      <DeliveryFilters params={params} set={set} />
      {replay.isError && (
        <Failed
          error={replay.error}
          workspace={ws}
          title={`Delivery ${replay.variables.number} was not considered again.`}
        />
      )}
      <p role="status" className={replay.isSuccess ? "tone-good" : "hidden"}>
        {replay.isSuccess && (
          <>
            <Icon name="done" /> Delivery {replay.variables.number} is considered again; what comes of it is added
            below.
          </>
        )}
      </p>
      {list.isPending ? (
        <Skeleton rows={5} />
      ) : list.isError && all.length === 0 ? (
        <Failed error={list.error} workspace={ws} retry={() => void list.refetch()} />
      ) : all.length === 0 ? (
        <p className="empty-inline">
          {filtered
            ? list.hasNextPage
              ? "None of the newest is like that; look further back with More."
              : "No delivery is like that."
            : app.autoDeploy
              ? `Nothing came yet. Push to ${watched(app.branch)}, and it will be listed here.`
              : "Auto-deploy is off, so Bitbucket has no webhook to deliver to."}
        </p>
      ) : (
        <div className="table-scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Time</th>
                <th scope="col">Event</th>
                <th scope="col">Branches</th>
                <th scope="col">Answer</th>
                <th scope="col">Outcome</th>
                <th scope="col">
                  <span className="hidden">Action</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {all.map((d) => (
                <DeliveryRow key={`${d.webhook}/${d.number}`} app={app} delivery={d} replay={replay} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More query={list} />
      {(refused.data?.deliveries.length ?? 0) > 0 && (
        <section aria-labelledby="refused">
          <h2 id="refused">Refused requests</h2>
          <p className="soft">Requests to the webhook's address that were not believed. Nothing was done with them.</p>
          <ul className="rows">
            {refused.data?.deliveries.map((d) => (
              <li key={d.number}>
                <span className="tone-bad">
                  <Icon name="failed" />
                </span>
                <Said>{d.answerMessage || "Signature did not match: is the secret right?"}</Said>
                <span className="soft nowrap">
                  <Time at={d.receiveTime} />
                </span>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  );
}
