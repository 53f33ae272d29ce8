import { useRef, useState, type ReactNode } from "react";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import type { App, Deployment } from "../api/client";
import { deploymentsQuery } from "../api/queries";
import { useNow } from "../lib/clock";
import { safe, shortHash, subject } from "../lib/text";
import { duration, took } from "../lib/time";
import { deploymentLook, ended, type Look } from "../lib/words";
import { usePlace } from "../lib/workspace";
import { Failed, Skeleton, Status, Text, Took } from "./basics";

const shown = 50;
/** Fewer bars than these stay slim. */
const leastPlaces = 25;
const plotHeight = 72;
const baseline = plotHeight - 1;
/** Above the highest bar there is room for the dot of one that failed. */
const mostHeight = baseline - 10;
const leastHeight = 4;

/** The newest deployments as pictures; the tables under them say the same in words. */
export default function Charts({ app }: { app: App }) {
  const { ws } = usePlace();
  const list = useInfiniteQuery(deploymentsQuery(ws, app.id, {}, shown));
  const newest = list.data?.pages[0]?.deployments;
  if (newest === undefined) {
    return list.isPending ? (
      <Skeleton rows={5} />
    ) : (
      <Failed error={list.error} workspace={ws} retry={() => void list.refetch()} />
    );
  }
  if (newest.length === 0) return null;
  return <Durations app={app.id} deployments={newest.toReversed()} />;
}

/** Deployments, oldest first: the height is the duration, colour, filling and a dot are the outcome. */
function Durations({ app, deployments }: { app: string; deployments: Deployment[] }) {
  const { ws } = usePlace();
  const now = useNow(deployments.every((d) => ended(d.state)) ? 60_000 : 1000);
  const bars = deployments.map((d) => ({ d, look: deploymentLook(d.state), ms: took(d.startTime, d.endTime, now) }));
  const longest = Math.max(1, ...bars.map((b) => b.ms ?? 0));
  const place = 100 / Math.max(bars.length, leastPlaces);
  const to = (d: Deployment) => `/w/${ws}/apps/${app}/deployments/${d.number}`;
  const [pointed, setPointed] = useState<number>();
  const said = bars.find((b) => b.d.number === pointed);
  const keys = useArrows(bars.length);
  return (
    <section aria-labelledby="durations">
      <h2 id="durations">{bars.length === 1 ? "The last deployment" : `The last ${bars.length} deployments`}</h2>
      <Legend looks={bars.map((b) => b.look)} />
      <svg
        className="chart"
        ref={keys.chart}
        height={plotHeight}
        role="list"
        aria-label="Duration and outcome by deployment, oldest first"
        onKeyDown={keys.onKeyDown}
      >
        {bars.map(({ d, look, ms }, i) => {
          const height = Math.max(leastHeight, ((ms ?? 0) / longest) * mostHeight);
          const hollow = look.tone === "idle";
          return (
            <g key={d.number} role="listitem">
              <Link
                to={to(d)}
                className={`bar tone-${look.tone}`}
                tabIndex={i === keys.at ? 0 : -1}
                aria-label={describe(d, look, ms)}
                onFocus={() => {
                  keys.setAt(i);
                  setPointed(d.number);
                }}
                onBlur={() => setPointed(undefined)}
                onPointerEnter={() => setPointed(d.number)}
                onPointerLeave={() => setPointed(undefined)}
              >
                <rect className="bar-place" x={`${i * place}%`} width={`${place}%`} height="100%" />
                <rect
                  className={hollow ? "bar-hollow" : "bar-full"}
                  x={`${(i + 0.15) * place}%`}
                  width={`${0.7 * place}%`}
                  y={baseline - height}
                  height={height}
                />
                {look.tone === "bad" && (
                  <circle cx={`${(i + 0.5) * place}%`} cy={baseline - height - 5} r={2.5} fill="currentColor" />
                )}
              </Link>
            </g>
          );
        })}
      </svg>
      <p className="soft chart-said" aria-hidden="true">
        {said === undefined
          ? `The longest took ${duration(longest)}. A bar opens its deployment.`
          : safe(`${describe(said.d, said.look, said.ms)} ${subject(said.d.commit?.message)}`)}
      </p>
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
            {bars.toReversed().map(({ d, look }) => (
              <tr key={d.number}>
                <th scope="row">
                  <Link to={to(d)}>#{d.number}</Link>
                </th>
                <td className="nowrap" data-label="Outcome">
                  <Status look={look} />
                </td>
                <td className="nowrap" data-label="Duration">
                  {d.startTime === undefined ? "not started" : <Took start={d.startTime} end={d.endTime} />}
                </td>
                <td data-label="Commit">
                  <code>{commitText(d)}</code> <Text>{subject(d.commit?.message)}</Text>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </InWords>
    </section>
  );
}

/** The table under a picture, made when it is opened. */
function InWords({ children }: { children: ReactNode }) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>As a table</summary>
      {open && <div className="table-scroll">{children}</div>}
    </details>
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

function commitText(d: Deployment): string {
  return shortHash(d.commit?.hash) || (ended(d.state) ? "none" : "not known yet");
}

/** "#12: Completed, 8.1 s, commit d848966". */
function describe(d: Deployment, look: Look, ms: number | undefined): string {
  return `#${d.number}: ${look.word}, ${ms === undefined ? "not started" : duration(ms)}, commit ${commitText(d)}`;
}

/** One stop for Tab, the newest first; arrows, Home and End go from bar to bar. */
function useArrows(count: number) {
  const chart = useRef<SVGSVGElement>(null);
  const [chosen, setAt] = useState<number>();
  const at = Math.min(chosen ?? count - 1, count - 1);
  const onKeyDown = (e: React.KeyboardEvent) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: count - 1 }[e.key];
    if (to === undefined || e.altKey || e.ctrlKey || e.metaKey) return;
    e.preventDefault();
    chart.current?.querySelectorAll<SVGAElement>("a")[Math.min(Math.max(to, 0), count - 1)]?.focus();
  };
  return { chart, at, setAt, onKeyDown };
}
