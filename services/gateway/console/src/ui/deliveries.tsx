import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import { api, body, requestId, type App, type Delivery } from "../api/client";
import { appDeliveriesQuery, keys, refusedQuery, type DeliveryFilter } from "../api/queries";
import { shortHash } from "../lib/text";
import { branchesText, outcomeTexts, watched } from "../lib/words";
import { whyPath } from "../lib/why";
import { usePlace } from "../lib/workspace";
import { Button, Failed, More, Said, Skeleton, Text, Time } from "./basics";
import { Icon } from "./icons";

const results = [
  ["DEPLOYED", "Deployed"],
  ["FAILED", "Failed"],
  ["TURNED_AWAY", "Turned away"],
  ["PENDING", "Not ended yet"],
  ["STOPPED", "Cancelled or superseded"],
] as const;

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
  const [params, setParams] = useSearchParams();
  const filter: DeliveryFilter = {};
  const branch = params.get("branch") ?? "";
  const commit = params.get("commit") ?? "";
  const outcome = results.find(([value]) => value === params.get("outcome"))?.[0];
  if (branch !== "") filter.branch = branch;
  if (commit !== "") filter.commit = commit;
  if (outcome !== undefined) filter.outcome = outcome;
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
  const list = useInfiniteQuery(appDeliveriesQuery(ws, app.id, filter));
  const hook = app.webhook?.id ?? "";
  const refused = useQuery({ ...refusedQuery(ws, hook), enabled: hook !== "" });
  const all = list.data?.pages.flatMap((p) => p.deliveries) ?? [];
  return (
    <>
      <p className="soft">Every push that Bitbucket told us about or that polling found, newest first.</p>
      {app.autoDeploy && app.webhook !== undefined && !["ACTIVE", "MANUAL"].includes(app.webhook.state ?? "") && (
        <p className="soft">Webhook missing: pushes are found by polling, one to two minutes after they are made.</p>
      )}
      <div className="filters" role="search" aria-label="Deliveries">
        <label>
          Branch <input value={branch} onChange={(e) => set("branch", e.target.value.trim())} />
        </label>
        <label>
          Commit <input value={commit} onChange={(e) => set("commit", e.target.value.trim())} />
        </label>
        <label>
          Outcome{" "}
          <select value={outcome ?? ""} onChange={(e) => set("outcome", e.target.value)}>
            <option value="">All</option>
            {results.map(([value, word]) => (
              <option key={value} value={value}>
                {word}
              </option>
            ))}
          </select>
        </label>
      </div>
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
                <tr key={`${d.webhook}/${d.number}`}>
                  <td className="nowrap" data-label="Time">
                    <Time at={d.receiveTime} />
                  </td>
                  <td data-label="Event">
                    {d.found !== undefined ? (
                      <Said>{d.foundMessage}</Said>
                    ) : d.eventKey === "repo:push" ? (
                      "Push"
                    ) : (
                      <code>{d.eventKey}</code>
                    )}{" "}
                    {d.actorLabel !== "" && (
                      <span className="soft">
                        by <Text>{d.actorLabel}</Text>
                      </span>
                    )}
                  </td>
                  <td data-label="Branches">
                    <Text>{branchesText(d)}</Text>
                    {d.changes
                      .filter((c) => c.newHash !== undefined)
                      .slice(0, 3)
                      .map((c, i) => (
                        <div key={i} className="soft">
                          <code>{shortHash(c.newHash ?? "")}</code> <Text>{c.message}</Text>
                          {c.authorName !== undefined && (
                            <>
                              {" "}
                              by <Text>{c.authorName}</Text>
                            </>
                          )}
                        </div>
                      ))}
                  </td>
                  <td className="nowrap num" data-label="Answer">
                    {d.found === undefined && d.answerStatus}
                  </td>
                  <td data-label="Outcome">
                    {outcomeTexts(d, app.id).map((o, i) => (
                      <div key={i} className={o.tone === "bad" ? "tone-bad" : undefined}>
                        {o.deployment !== undefined ? (
                          <Link to={`/w/${ws}/apps/${app.id}/deployments/${o.deployment}`}>{o.text}</Link>
                        ) : (
                          <Said>{o.text}</Said>
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
                    <Link to={whyPath(ws, "delivery", `${d.webhook}/${d.number}`)}>
                      Why?<span className="hidden"> Delivery {d.number}</span>
                    </Link>{" "}
                    {d.found === undefined && (
                      <Button
                        className="small"
                        forbidden={adminOnly}
                        busy={replay.isPending && replay.variables?.number === d.number}
                        title="Considers it again, as if it came now"
                        onClick={() => replay.mutate(d)}
                      >
                        Replay<span className="hidden"> delivery {d.number}</span>
                      </Button>
                    )}
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
