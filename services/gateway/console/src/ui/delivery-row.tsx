import { useMutation, useQueryClient, type UseMutationResult } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, body, type App, type Delivery } from "../api/client";
import { keys } from "../api/queries";
import { shortHash } from "../lib/text";
import { whyPath } from "../lib/why";
import { branchesText, outcomeTexts } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Button, Said, Text, Time } from "./basics";
import { DeliveryBody } from "./delivery-body";
import { Icon } from "./icons";

const marks = { good: "done", busy: "running", warn: "alert", bad: "failed", idle: "none" } as const;

/** Has a delivery considered again, as if it came now. */
export function useReplay() {
  const { ws } = usePlace();
  const client = useQueryClient();
  return useMutation({
    mutationFn: async (d: Delivery) =>
      body(
        await api.POST("/v1/workspaces/{workspace}/webhooks/{webhook}/deliveries/{delivery}:replay", {
          params: { path: { workspace: ws, webhook: d.webhook, delivery: d.number } },
          body: {},
        }),
      ),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.kind(ws, "delivery") }),
  });
}

/** One delivery, or a push that was found without one. */
export function DeliveryRow({
  app,
  delivery: d,
  replay,
}: {
  app: App;
  delivery: Delivery;
  replay: UseMutationResult<unknown, Error, Delivery>;
}) {
  const { ws, adminOnly } = usePlace();
  return (
    <tr>
      <td className="nowrap" data-label="Time">
        <Time at={d.receiveTime} /> <div className="soft num">delivery {d.number}</div>
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
          <div key={i} className="outcome">
            <span className={`tone-${o.tone}`}>
              <Icon name={marks[o.tone]} />
            </span>
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
      <td className="nowrap">
        <Link to={whyPath(ws, "delivery", `${d.webhook}/${d.number}`)}>
          Why?<span className="hidden"> Delivery {d.number}</span>
        </Link>{" "}
        {d.found === undefined && (
          <>
            <Button
              className="small"
              forbidden={adminOnly}
              busy={replay.isPending && replay.variables?.number === d.number}
              title="Considers it again, as if it came now"
              onClick={() => replay.mutate(d)}
            >
              Replay<span className="hidden"> delivery {d.number}</span>
            </Button>{" "}
            <DeliveryBody delivery={d} />
          </>
        )}
      </td>
    </tr>
  );
}
