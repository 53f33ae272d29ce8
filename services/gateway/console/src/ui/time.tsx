// Every time on a page goes through here: the reader's zone, and UTC on hover.
import { useNow } from "../lib/clock";
import { parts, toMe } from "../lib/said";
import { safe } from "../lib/text";
import { clock, duration, exact, relative, took } from "../lib/time";
import { useMyLabel } from "../lib/workspace";

/** A time: relative, or the clock; the exact one with its zone and UTC on hover. */
export function Time({ at, style = "relative" }: { at: string | undefined; style?: "relative" | "clock" }) {
  const now = useNow(style === "relative" ? 1000 : 60_000);
  if (at === undefined) return null;
  const t = new Date(at);
  return (
    <time dateTime={at} title={exact(t)}>
      {style === "relative" ? relative(t, now) : clock(t, now)}
    </time>
  );
}

/** When Devpilot tries again: never a time that has passed. */
export function Upcoming({ at }: { at: string }) {
  const now = useNow(1000);
  return Date.parse(at) - now.getTime() < 10_000 ? <>in a moment</> : <Time at={at} />;
}

/** How long something takes, ticking until its end. */
export function Took({ start, end }: { start: string | undefined; end: string | undefined }) {
  const now = useNow(1000);
  const ms = took(start, end, now);
  return ms === undefined ? null : <span className="num">{duration(ms)}</span>;
}

/** A sentence of Devpilot's API, in which every time is the reader's, and the reader is "you". What strangers wrote is <Text>. */
export function Said({ children }: { children: string | undefined }) {
  const me = useMyLabel();
  return (
    <bdi>
      {parts(toMe(safe(children ?? ""), me)).map((p, i) =>
        p.at === undefined ? p.text : <Time key={i} at={p.at} style="clock" />,
      )}
    </bdi>
  );
}
