import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, body, requestId, type App, type Delivery } from "../api/client";
import { appDeliveriesQuery, keys, refusedQuery } from "../api/queries";
import { shortHash } from "../lib/text";
import { branchesText, outcomeTexts, watched } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Button, Failed, More, Skeleton, Text, Time } from "./basics";
import { Icon } from "./icons";

/** What Bitbucket delivered, what Devpilot answered, and what came of it, in words. */
export function Deliveries({ app }: { app: App }) {
  const { ws, adminOnly } = usePlace();
  const client = useQueryClient();
  const replay = useMutation({
    mutationFn: async (d: Delivery) =>
      body(
        await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}/deliveries/{delivery}:replay", {
          params: { path: { workspace: ws, webhook: d.webhook, delivery: d.number } },
          body: { requestId: requestId() },
        }),
      ),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "delivery") }),
  });
  const list = useInfiniteQuery(appDeliveriesQuery(ws, app.id));
  const hook = app.webhook?.id ?? "";
  const refused = useQuery({ ...refusedQuery(ws, hook), enabled: hook !== "" });
  const all = list.data?.pages.flatMap((p) => p.deliveries) ?? [];
  return (
    <>
      <p className="soft">Every push that Bitbucket told us about, newest first, and what came of it.</p>
      {app.turnedAway.map((p) => (
        <p key={`${p.branch}/${p.tag}/${p.commit}`} className="soft">
          Devpilot found <code>{shortHash(p.commit)}</code> on{" "}
          <Text>{p.tag !== undefined ? `tag ${p.tag}` : p.branch}</Text> by itself <Time at={p.time} /> and did not
          deploy it: <Text>{p.message}</Text>
        </p>
      ))}
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
          {app.autoDeploy
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
                <tr key={`${d.webhook}/${d.number}`}>
                  <td className="nowrap" data-label="Time">
                    <Time at={d.receiveTime} />
                  </td>
                  <td data-label="Event">
                    {d.eventKey === "repo:push" ? "Push" : <code>{d.eventKey}</code>}{" "}
                    {d.actorLabel !== "" && (
                      <span className="soft">
                        by <Text>{d.actorLabel}</Text>
                      </span>
                    )}
                  </td>
                  <td data-label="Branches">
                    <Text>{branchesText(d)}</Text>
                  </td>
                  <td className="nowrap num" data-label="Answer">
                    {d.answerStatus}
                  </td>
                  <td data-label="Outcome">
                    {outcomeTexts(d, app.id).map((o, i) => (
                      <div key={i} className={o.tone === "bad" ? "tone-bad" : undefined}>
                        {o.deployment !== undefined ? (
                          <Link to={`/w/${ws}/apps/${app.id}/deployments/${o.deployment}`}>{o.text}</Link>
                        ) : (
                          <Text>{o.text}</Text>
                        )}
                      </div>
                    ))}
                    {d.replays > 0 && (
                      <div className="soft">
                        {d.replays === 1 ? "considered again once" : `considered again ${d.replays} times`}
                      </div>
                    )}
                  </td>
                  <td>
                    <Button
                      className="small"
                      forbidden={adminOnly}
                      busy={replay.isPending && replay.variables?.number === d.number}
                      title="Considers it again, as if it came now"
                      onClick={() => replay.mutate(d)}
                    >
                      Replay<span className="hidden"> delivery {d.number}</span>
                    </Button>
                  </td>
                </tr>
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
                <Text>{d.answerMessage || "Signature did not match: is the secret right?"}</Text>
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
