import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useSearchParams } from "react-router";
import type { ActivityRecord } from "../api/client";
import { appOfWebhookQuery } from "../api/some-apps";
import { activityQuery } from "../api/queries";
import {
  actionKinds,
  activityFilter,
  activityPage,
  byDay,
  dayName,
  exportAddress,
  hasParts,
  inWords,
  webhookOf,
} from "../lib/activity";
import { useNow } from "../lib/clock";
import { useMyLabel, usePlace } from "../lib/workspace";
import { Failed, More, PageTitle, Said, Skeleton, Text, Time, useTitle } from "../ui/basics";
import { Icon } from "../ui/icons";
import { SearchText } from "../ui/search-text";

export default function Activity() {
  const { ws } = usePlace();
  const myLabel = useMyLabel();
  const [params, setParams] = useSearchParams();
  const filter = activityFilter(params);
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
  const activity = useInfiniteQuery(activityQuery(ws, filter));
  const now = useNow(60_000);
  useTitle("Activity");
  const all = activity.data?.pages.flatMap((p) => p.activity) ?? [];
  return (
    <>
      <PageTitle>Activity</PageTitle>
      <p className="soft">What people and API keys did in this workspace, newest first.</p>
      <div className="filters fields" role="search" aria-label="Activity">
        <SearchText shown label="Who" value={params.get("who") ?? ""} onChange={(v) => set("who", v)} />
        <label>
          What{" "}
          <select value={filter.action ?? ""} onChange={(e) => set("kind", e.target.value)}>
            <option value="">All</option>
            {actionKinds.map(([kind, word]) => (
              <option key={kind} value={kind}>
                {word}
              </option>
            ))}
          </select>
        </label>
        <SearchText shown label="App" value={params.get("app") ?? ""} onChange={(v) => set("app", v)} />
        <label>
          From <input type="date" value={params.get("from") ?? ""} onChange={(e) => set("from", e.target.value)} />
        </label>
        <label>
          To{" "}
          <input
            type="date"
            min={params.get("from") ?? undefined}
            value={params.get("to") ?? ""}
            onChange={(e) => set("to", e.target.value)}
          />
        </label>
      </div>
      <p>
        Export: <a href={exportAddress(ws, filter, "csv")}>CSV</a>{" "}
        <a href={exportAddress(ws, filter, "jsonl")}>JSON lines</a>{" "}
        <span className="soft">of all that matches, the newest 20,000 at most</span>
      </p>
      {activity.isPending ? (
        <Skeleton rows={8} />
      ) : activity.isError && all.length === 0 ? (
        <Failed error={activity.error} workspace={ws} retry={() => void activity.refetch()} />
      ) : all.length === 0 && filtered ? (
        <p className="empty-inline">
          {activity.hasNextPage
            ? "None of the newest is like that; look further back with Load more."
            : "Nothing that was done is like that."}
        </p>
      ) : all.length === 0 ? (
        <section className="empty">
          <h2>Nothing was done here yet</h2>
          <p>Sign-ins, connects, changes of apps, deployments by hand and revealed secrets will be listed here.</p>
        </section>
      ) : (
        byDay(all).map(({ day, entries }) => (
          <section key={day} className="activity" aria-label={dayName(day, now)}>
            <h2 className="day">{dayName(day, now)}</h2>
            <ul className="rows">
              {entries.map((r) => (
                <li key={r.number}>
                  <span className={r.succeeded ? "tone-good" : "tone-bad"}>
                    <Icon name={r.succeeded ? "done" : "failed"} />
                  </span>
                  <div>
                    <div>
                      <strong>
                        {r.actorKind !== "API_KEY" && r.actorLabel === myLabel ? "You" : <Text>{r.actorLabel}</Text>}
                      </strong>
                      {" · "}
                      <Done entry={r} />
                      {!r.succeeded && <span className="hidden"> (failed)</span>}
                    </div>
                    <div className="soft">
                      {r.actorKind === "API_KEY" ? "by API key · " : ""}
                      <code>{r.action}</code>
                      {r.address ? ` · from ${r.address}` : ""}
                    </div>
                    {r.changes.map((c) => (
                      <Change key={c.field} change={c} />
                    ))}
                  </div>
                  <span className="soft nowrap">
                    <Time at={r.time} />
                  </span>
                </li>
              ))}
            </ul>
          </section>
        ))
      )}
      <More query={activity} />
    </>
  );
}

/** A value before and after; of what is made of parts the sentence above says what is another, and the parts are folded. */
function Change({ change: c }: { change: ActivityRecord["changes"][number] }) {
  if (!hasParts(c.before) && !hasParts(c.after)) {
    return (
      <div className="soft">
        <code>{c.field}</code>: <Text>{inWords(c.before)}</Text> → <Text>{inWords(c.after)}</Text>
      </div>
    );
  }
  return (
    <details className="soft parts">
      <summary>
        <code>{c.field}</code> before and after
      </summary>
      {[c.before, c.after].map((value, i) => (
        <p key={i}>
          {i === 0 ? "Before: " : "After: "}
          <code>
            <Text>{inWords(value)}</Text>
          </code>
        </p>
      ))}
    </details>
  );
}

/** What was done, as a link to what it was done to. What was deleted has no page any more. */
function Done({ entry: e }: { entry: ActivityRecord }) {
  const { ws } = usePlace();
  const hook = webhookOf(e.resource);
  const app = useQuery({ ...appOfWebhookQuery(ws, hook ?? ""), enabled: hook !== undefined });
  const page = e.succeeded && e.action.endsWith(".delete") ? undefined : activityPage(ws, e.resource, app.data);
  return page === undefined ? (
    <Said>{e.message}</Said>
  ) : (
    <Link to={page}>
      <Said>{e.message}</Said>
    </Link>
  );
}
