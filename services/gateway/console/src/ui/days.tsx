import { useQuery } from "@tanstack/react-query";
import type { App } from "../api/client";
import { deliveriesSinceQuery, weekQuery } from "../api/queries";
import { byDay, deliveryLook, deliveryLooks, deploymentLooks, lastDays } from "../lib/charts";
import { useNow } from "../lib/clock";
import { day, weekday } from "../lib/time";
import { deploymentLook, type Look } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Failed, Skeleton, Status } from "./basics";
import { baseline, Chart, InWords, mostHeight, placeOf } from "./chart";
import { pictureHeight } from "./seen";

const week = 7;

/** What came to an app in the last seven days, by what came of it. */
export function DeliveryDays({ app }: { app: App }) {
  const { ws } = usePlace();
  const days = useWeek();
  const came = useQuery(deliveriesSinceQuery(ws, app.id, begin(days)));
  if (came.data === undefined) {
    return came.isPending ? (
      <div style={{ minHeight: pictureHeight }}>
        <Skeleton rows={5} />
      </div>
    ) : (
      <Failed error={came.error} workspace={ws} retry={() => void came.refetch()} />
    );
  }
  if (came.data.items.length === 0) return null;
  return (
    <Days
      id="delivery-days"
      title="Deliveries of seven days"
      label="Deliveries by day and outcome, oldest first"
      one="delivery"
      many="deliveries"
      days={days}
      looks={Object.values(deliveryLooks)}
      items={came.data.items.map((d) => ({ at: d.receiveTime, look: deliveryLook(d, app.id) }))}
      note={came.data.more ? `Only the newest ${came.data.items.length} are counted.` : ""}
      to={`/w/${ws}/apps/${app.id}?tab=deliveries`}
    />
  );
}

/** The workspace's week: what was deployed, by day and outcome. */
export default function WorkspaceWeek() {
  const { ws } = usePlace();
  const days = useWeek();
  const made = useQuery(weekQuery(ws, begin(days)));
  if (made.data === undefined) {
    return made.isPending ? (
      <div style={{ minHeight: pictureHeight }}>
        <Skeleton rows={5} />
      </div>
    ) : (
      <Failed error={made.error} workspace={ws} retry={() => void made.refetch()} />
    );
  }
  if (made.data.items.length === 0) return null;
  return (
    <Days
      id="week"
      title="The week"
      label="Deployments by day and outcome, oldest first"
      one="deployment"
      many="deployments"
      days={days}
      looks={deploymentLooks}
      items={made.data.items.map((d) => ({ at: d.createTime, look: deploymentLook(d.state) }))}
      note={made.data.more ? `Only the newest ${made.data.items.length} are counted.` : ""}
    />
  );
}

function useWeek(): Date[] {
  return lastDays(useNow(60_000), week);
}

function begin(days: readonly Date[]): string {
  return days[0]?.toISOString() ?? "";
}

interface Props {
  id: string;
  title: string;
  label: string;
  one: string;
  many: string;
  days: readonly Date[];
  /** In the order in which they are piled up. */
  looks: readonly Look[];
  items: readonly { at: string | undefined; look: Look }[];
  note: string;
  /** Where a day's bar leads. */
  to?: string;
}

/** A bar a day, piled up of outcomes; the table under it says the same in words. */
function Days({ id, title, label, one, many, days, looks, items, note, to }: Props) {
  const counts = byDay(days, items);
  const seen = looks.filter((l) => counts.some((c) => c.has(l.word)));
  const totals = counts.map((c) => Array.from(c.values()).reduce((a, b) => a + b, 0));
  const most = Math.max(1, ...totals);
  const sum = totals.reduce((a, b) => a + b, 0);
  const place = placeOf(days.length, days.length);
  const said = (i: number) => {
    const parts = seen.flatMap((l) => {
      const n = counts[i]?.get(l.word) ?? 0;
      return n === 0 ? [] : [`${n} ${l.word.toLowerCase()}`];
    });
    return `${day(days[i] ?? new Date())}: ${parts.length === 0 ? "none" : parts.join(", ")}`;
  };
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      <p className="legend">
        {seen.map((l) => (
          <Status key={l.word} look={l}>
            {" "}
            {counts.reduce((n, c) => n + (c.get(l.word) ?? 0), 0)}
          </Status>
        ))}
      </p>
      <Chart
        label={label}
        least={days.length}
        axis={days.map((d, i) => (i === days.length - 1 ? "Today" : weekday(d)))}
        marks={days.map((d, i) => ({
          id: d.toISOString(),
          name: said(i),
          said: said(i),
          tone: "idle",
          ...(to === undefined ? {} : { to }),
        }))}
        sum={`${sum} ${sum === 1 ? one : many} in seven days. ${note}`.trim()}
        draw={(i, x) => {
          let y = baseline;
          return seen.map((l) => {
            const height = ((counts[i]?.get(l.word) ?? 0) / most) * mostHeight;
            y -= height;
            return (
              height > 0 && (
                <rect
                  key={l.word}
                  className={`${l.tone === "idle" ? "bar-hollow" : "bar-full"} tone-${l.tone}`}
                  x={`${x + 0.2 * place}%`}
                  width={`${0.6 * place}%`}
                  y={y}
                  height={height}
                />
              )
            );
          });
        }}
      />
      <InWords>
        <table aria-label={`${label.replace("oldest", "newest")}`}>
          <thead>
            <tr>
              <th scope="col">Day</th>
              {seen.map((l) => (
                <th key={l.word} scope="col">
                  {l.word}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {days
              .map((d, i) => (
                <tr key={d.toISOString()}>
                  <th scope="row">{day(d)}</th>
                  {seen.map((l) => (
                    <td key={l.word} className="num" data-label={l.word}>
                      {counts[i]?.get(l.word) ?? 0}
                    </td>
                  ))}
                </tr>
              ))
              .toReversed()}
          </tbody>
        </table>
      </InWords>
    </section>
  );
}
