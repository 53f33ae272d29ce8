import { useInfiniteQuery } from "@tanstack/react-query";
import { activityQuery } from "../api/queries";
import { usePlace } from "../lib/workspace";
import { Failed, More, PageTitle, Skeleton, Text, Time, useTitle } from "../ui/basics";
import { Icon } from "../ui/icons";

export default function Activity() {
  const { ws } = usePlace();
  const activity = useInfiniteQuery(activityQuery(ws));
  useTitle("Activity");
  const all = activity.data?.pages.flatMap((p) => p.activity) ?? [];
  return (
    <>
      <PageTitle>Activity</PageTitle>
      <p className="soft">What people and API keys did in this workspace, newest first.</p>
      {activity.isPending ? (
        <Skeleton rows={8} />
      ) : activity.isError && all.length === 0 ? (
        <Failed error={activity.error} workspace={ws} retry={() => void activity.refetch()} />
      ) : all.length === 0 ? (
        <section className="empty">
          <h2>Nothing was done here yet</h2>
          <p>Sign-ins, connects, changes of apps, deployments by hand and revealed secrets will be listed here.</p>
        </section>
      ) : (
        <ul className="rows">
          {all.map((r) => (
            <li key={r.number}>
              <span className={r.succeeded ? "tone-good" : "tone-bad"}>
                <Icon name={r.succeeded ? "done" : "failed"} />
              </span>
              <div>
                <div>
                  <strong>
                    <Text>{r.actorLabel}</Text>
                  </strong>
                  {" · "}
                  <Text>{r.message}</Text>
                  {!r.succeeded && <span className="hidden"> (failed)</span>}
                </div>
                <div className="soft">
                  {r.actorKind === "API_KEY" ? "by API key · " : ""}
                  <code>{r.action}</code>
                  {r.address ? ` · from ${r.address}` : ""}
                </div>
                {r.changes.map((c) => (
                  <div key={c.field} className="soft">
                    <code>{c.field}</code>: <Text>{c.before ?? "not set"}</Text> → <Text>{c.after ?? "not set"}</Text>
                  </div>
                ))}
              </div>
              <span className="soft nowrap">
                <Time at={r.time} />
              </span>
            </li>
          ))}
        </ul>
      )}
      <More query={activity} />
    </>
  );
}
