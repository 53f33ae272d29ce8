import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import type { App, Deployment } from "../api/client";
import { deploymentsQuery } from "../api/queries";
import { median, pushToLive } from "../lib/charts";
import { useNow } from "../lib/clock";
import { safe, shortHash, subject } from "../lib/text";
import { duration, took } from "../lib/time";
import { deploymentLook, ended, type Look } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Failed, Skeleton, Status, Text } from "./basics";
import { DeliveryDays } from "./days";
import { baseline, Chart, InWords, mostHeight, placeOf } from "./chart";
import { pictureHeight } from "./seen";

const shown = 50;
const leastHeight = 4;

/** The newest deployments as pictures; the tables under them say the same in words. */
export default function Charts({ app }: { app: App }) {
  const { ws } = usePlace();
  const list = useInfiniteQuery(deploymentsQuery(ws, app.id, {}, shown));
  const newest = list.data?.pages[0]?.deployments;
  if (newest === undefined) {
    return list.isPending ? (
      <div style={{ minHeight: pictureHeight }}>
        <Skeleton rows={5} />
      </div>
    ) : (
      <Failed error={list.error} workspace={ws} retry={() => void list.refetch()} />
    );
  }
  if (newest.length === 0) return null;
  const page = (d: Deployment) => `/w/${ws}/apps/${app.id}/deployments/${d.number}`;
  const deployments = newest.toReversed();
  return (
    <div className="charts">
      <Durations deployments={deployments} page={page} />
      <PushToLive deployments={deployments} page={page} />
      <DeliveryDays app={app} />
    </div>
  );
}

interface Props {
  /** Oldest first. */
  deployments: Deployment[];
  page: (d: Deployment) => string;
}

/** The height is the duration; colour, filling and a dot are the outcome. */
function Durations({ deployments, page }: Props) {
  const now = useNow(deployments.every((d) => ended(d.state)) ? 60_000 : 1000);
  const bars = deployments.map((d) => ({ d, look: deploymentLook(d.state), ms: took(d.startTime, d.endTime, now) }));
  const longest = Math.max(1, ...bars.map((b) => b.ms ?? 0));
  const place = placeOf(bars.length);
  const time = (ms: number | undefined) => (ms === undefined ? "not started" : duration(ms));
  return (
    <section aria-labelledby="durations">
      <h2 id="durations">{bars.length === 1 ? "The last deployment" : `The last ${bars.length} deployments`}</h2>
      <Legend looks={bars.map((b) => b.look)} />
      <Chart
        label="Duration and outcome by deployment, oldest first"
        marks={bars.map(({ d, look, ms }) => ({
          ...named(d, `${look.word}, ${time(ms)}`),
          to: page(d),
          tone: look.tone,
        }))}
        sum={`The longest took ${duration(longest)}. A bar opens its deployment.`}
        draw={(i, x) => {
          const { look, ms } = bars[i] ?? {};
          const height = Math.max(leastHeight, ((ms ?? 0) / longest) * mostHeight);
          return (
            <>
              <rect
                className={look?.tone === "idle" ? "bar-hollow" : "bar-full"}
                x={`${x + 0.15 * place}%`}
                width={`${0.7 * place}%`}
                y={baseline - height}
                height={height}
              />
              {look?.tone === "bad" && (
                <circle cx={`${x + 0.5 * place}%`} cy={baseline - height - 5} r={2.5} fill="currentColor" />
              )}
            </>
          );
        }}
      />
      <InWords>
        <table aria-label="Duration and outcome by deployment, newest first">
          <thead>
            <tr>
              <th scope="col">Deployment</th>
              <th scope="col">Outcome</th>
              <th scope="col">Duration</th>
              <th scope="col">Commit</th>
            </tr>
          </thead>
          <tbody>
            {bars.toReversed().map(({ d, look, ms }) => (
              <tr key={d.number}>
                <Row d={d} to={page(d)} />
                <td className="nowrap" data-label="Outcome">
                  <Status look={look} />
                </td>
                <td className="nowrap num" data-label="Duration">
                  {time(ms)}
                </td>
                <Commit d={d} />
              </tr>
            ))}
          </tbody>
        </table>
      </InWords>
    </section>
  );
}

/** How soon pushes were live, one by one, with the median as a line. */
function PushToLive({ deployments, page }: Props) {
  const dots = deployments.flatMap((d) => {
    const ms = pushToLive(d);
    return ms === undefined ? [] : [{ d, ms }];
  });
  const middle = median(dots.map((p) => p.ms));
  if (middle === undefined) return null;
  const longest = Math.max(1, ...dots.map((p) => p.ms));
  const place = placeOf(dots.length);
  const y = (ms: number) => baseline - leastHeight - (ms / longest) * (mostHeight - leastHeight);
  return (
    <section aria-labelledby="push-to-live">
      <h2 id="push-to-live">From push to live</h2>
      <p>
        {dots.length === 1
          ? `${duration(middle)}, one push`
          : `${duration(middle)} in the median of ${dots.length} pushes`}
      </p>
      <Chart
        label="From push to live, oldest first"
        marks={dots.map(({ d, ms }) => ({
          ...named(d, `live ${duration(ms)} after its push`),
          to: page(d),
          tone: "busy",
        }))}
        sum={`The dashed line is the median. The slowest took ${duration(longest)}.`}
        behind={
          <>
            <line className="chart-median" x1="0" x2="100%" y1={y(middle)} y2={y(middle)} />
            {dots.slice(1).map(({ d, ms }, i) => (
              <line
                key={d.number}
                className="chart-line"
                x1={`${(i + 0.5) * place}%`}
                y1={y(dots[i]?.ms ?? ms)}
                x2={`${(i + 1.5) * place}%`}
                y2={y(ms)}
              />
            ))}
          </>
        }
        draw={(i, x) => <circle cx={`${x + 0.5 * place}%`} cy={y(dots[i]?.ms ?? 0)} r={3.5} fill="currentColor" />}
      />
      <InWords>
        <table aria-label="From push to live, newest first">
          <thead>
            <tr>
              <th scope="col">Deployment</th>
              <th scope="col">From push to live</th>
              <th scope="col">Commit</th>
            </tr>
          </thead>
          <tbody>
            {dots.toReversed().map(({ d, ms }) => (
              <tr key={d.number}>
                <Row d={d} to={page(d)} />
                <td className="nowrap num" data-label="To live">
                  {duration(ms)}
                </td>
                <Commit d={d} />
              </tr>
            ))}
          </tbody>
        </table>
      </InWords>
    </section>
  );
}

/** How often each outcome came, with its shape and word. */
function Legend({ looks }: { looks: Look[] }) {
  const kinds = looks.filter((look, i) => looks.findIndex((l) => l.word === look.word) === i);
  return (
    <p className="legend">
      {kinds.map((look) => (
        <Status key={look.word} look={look}>
          {" "}
          {looks.filter((l) => l.word === look.word).length}
        </Status>
      ))}
    </p>
  );
}

function Row({ d, to }: { d: Deployment; to: string }) {
  return (
    <th scope="row">
      <Link to={to}>#{d.number}</Link>
    </th>
  );
}

function Commit({ d }: { d: Deployment }) {
  return (
    <td data-label="Commit">
      <code>{commitText(d)}</code> <Text>{subject(d.commit?.message)}</Text>
    </td>
  );
}

function commitText(d: Deployment): string {
  return shortHash(d.commit?.hash) || (ended(d.state) ? "none" : "not known yet");
}

/** "#12: Completed, 8.1 s, commit d848966", and with the commit's message. */
function named(d: Deployment, what: string): { id: number; name: string; said: string } {
  const name = `#${d.number}: ${what}, commit ${commitText(d)}`;
  return { id: d.number, name, said: safe(`${name} ${subject(d.commit?.message)}`) };
}
