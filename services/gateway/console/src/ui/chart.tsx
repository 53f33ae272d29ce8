import { useRef, useState, type ReactNode } from "react";
import { Link } from "react-router";
import type { Tone } from "../lib/words";

export const plotHeight = 72;
export const baseline = plotHeight - 1;
/** Above the highest mark there is room for a dot. */
export const mostHeight = baseline - 10;

/** Fewer marks than these stay slim. */
const leastPlaces = 25;

export interface Mark {
  id: number | string;
  /** Where it leads; one that leads nowhere can be pointed at and focused all the same. */
  to?: string;
  tone: Tone;
  /** What a screen reader says for it. */
  name: string;
  /** What stands under the chart while it is pointed at. */
  said: string;
}

/** The width of a mark's place, in percent. */
export function placeOf(count: number, least = leastPlaces): number {
  return 100 / Math.max(count, least);
}

/**
 * Marks in a row, each a link through the whole height of its place. One stop for Tab, the newest first;
 * arrows, Home and End go from mark to mark. Under it stands what is pointed at, or else the sum.
 */
export function Chart({
  label,
  marks,
  sum,
  behind,
  draw,
  least,
  axis,
}: {
  /** What stands under each place; the marks' names say it too. */
  axis?: readonly string[];
  /** How many marks there is room for at least. */
  least?: number;
  label: string;
  marks: Mark[];
  sum: string;
  behind?: ReactNode;
  /** Draws the mark with this index, its place beginning at x percent. */
  draw: (i: number, x: number) => ReactNode;
}) {
  const chart = useRef<SVGSVGElement>(null);
  const [chosen, setChosen] = useState<Mark["id"]>();
  const [pointed, setPointed] = useState<Mark["id"]>();
  const last = marks.length - 1;
  const found = marks.findIndex((m) => m.id === chosen);
  const at = found < 0 ? last : found;
  const place = placeOf(marks.length, least);
  const onKeyDown = (e: React.KeyboardEvent) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[e.key];
    if (to === undefined || e.altKey || e.ctrlKey || e.metaKey) return;
    e.preventDefault();
    chart.current?.querySelectorAll<SVGElement>(".mark")[Math.min(Math.max(to, 0), last)]?.focus();
  };
  return (
    <>
      <svg className="chart" ref={chart} height={plotHeight} role="list" aria-label={label} onKeyDown={onKeyDown}>
        {behind}
        {marks.map((m, i) => (
          <g key={m.id} role="listitem">
            <Place
              mark={m}
              tabIndex={i === at ? 0 : -1}
              onFocus={() => {
                setChosen(m.id);
                setPointed(m.id);
              }}
              onBlur={() => setPointed(undefined)}
              onPointerEnter={() => setPointed(m.id)}
              onPointerLeave={() => setPointed(undefined)}
            >
              <rect className="mark-place" x={`${i * place}%`} width={`${place}%`} height="100%" />
              {draw(i, i * place)}
            </Place>
          </g>
        ))}
      </svg>
      {axis !== undefined && (
        <div className="chart-axis" aria-hidden="true">
          {axis.map((word) => (
            <span key={word}>{word}</span>
          ))}
        </div>
      )}
      <p className="soft chart-said" aria-hidden="true">
        {marks.find((m) => m.id === pointed)?.said ?? sum}
      </p>
    </>
  );
}

interface PlaceProps {
  mark: Mark;
  tabIndex: number;
  onFocus: () => void;
  onBlur: () => void;
  onPointerEnter: () => void;
  onPointerLeave: () => void;
  children: ReactNode;
}

function Place({ mark: m, children, ...rest }: PlaceProps) {
  const common = { className: `mark tone-${m.tone}`, "aria-label": m.name, ...rest };
  return m.to === undefined ? (
    <g role="img" {...common}>
      {children}
    </g>
  ) : (
    <Link to={m.to} {...common}>
      {children}
    </Link>
  );
}

/** The table under a picture, made when it is opened. */
export function InWords({ children }: { children: ReactNode }) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>As a table</summary>
      {open && <div className="table-scroll">{children}</div>}
    </details>
  );
}
