// Texts for times and durations. Times are local; the date is added when it is not today; the exact
// time with its zone and UTC is for hovering. "Now" is the server's: see clock.ts.

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

function ago(n: number, unit: string, future: boolean): string {
  return future ? `in ${n} ${unit}` : `${n} ${unit} ago`;
}

function plural(n: number, one: string): string {
  return n === 1 ? one : `${one}s`;
}

/** "12 min ago", "in 3 h", "yesterday", "3 weeks ago". Within 10 s of now either way: "just now". */
export function relative(time: Date, now: Date): string {
  const diff = now.getTime() - time.getTime();
  const future = diff < 0;
  const d = Math.abs(diff);
  if (d < 10_000) return "just now";
  if (d < MINUTE) return ago(Math.floor(d / 1000), "s", future);
  if (d < HOUR) return ago(Math.floor(d / MINUTE), "min", future);
  if (d < DAY) return ago(Math.floor(d / HOUR), "h", future);
  const days = Math.floor(d / DAY);
  if (days === 1) return future ? "tomorrow" : "yesterday";
  if (days < 14) return ago(days, "days", future);
  if (days < 60) return ago(Math.floor(days / 7), "weeks", future);
  if (days < 730) return ago(Math.floor(days / 30), "months", future);
  const years = Math.floor(days / 365);
  return ago(years, plural(years, "year"), future);
}

// To make a format takes far longer than to use it, and each line of a log has a time.
const formats = new Map<string, Intl.DateTimeFormat>();

function format(options: Intl.DateTimeFormatOptions, zone?: string): Intl.DateTimeFormat {
  const key = JSON.stringify([options, zone]);
  const made =
    formats.get(key) ?? new Intl.DateTimeFormat("en-GB", zone === undefined ? options : { ...options, timeZone: zone });
  formats.set(key, made);
  return made;
}

/** "14:20" today, "12 Mar, 14:20" this year, "12 Mar 2025, 14:20" else. */
export function clock(time: Date, now: Date, zone?: string): string {
  const day = format({ year: "numeric", month: "numeric", day: "numeric" }, zone);
  const hm = format({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, zone).format(time);
  if (day.format(time) === day.format(now)) return hm;
  const year = format({ year: "numeric" }, zone);
  const sameYear = year.format(time) === year.format(now);
  const date = format(
    sameYear ? { day: "numeric", month: "short" } : { day: "numeric", month: "short", year: "numeric" },
    zone,
  );
  return `${date.format(time)}, ${hm}`;
}

/** "Mon 23 Nov": a day of the reader's own zone. */
export function day(time: Date): string {
  return format({ weekday: "short", day: "numeric", month: "short" }).format(time).replace(",", "");
}

/** "Mon", of the reader's own zone. */
export function weekday(time: Date): string {
  return format({ weekday: "short" }).format(time);
}

const pad = (n: number) => String(n).padStart(2, "0");

/** "14:20:05" of the reader's own zone; for many at once, so without Intl. */
export function second(time: string): string {
  const t = new Date(time);
  return `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}`;
}

/** "Thu, 12 Mar 2026, 14:20:05 CET (13:20:05 UTC)". */
export function exact(time: Date, zone?: string): string {
  const local = format(
    {
      weekday: "short",
      day: "numeric",
      month: "short",
      year: "numeric",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
      hourCycle: "h23",
      timeZoneName: "short",
    },
    zone,
  ).format(time);
  const utc = time.toISOString().slice(11, 19);
  return `${local} (${utc} UTC)`;
}

/** A time of which only the hour is known: "within the hour", "about 3 h ago". */
export function toTheHour(time: Date, now: Date): string {
  const d = now.getTime() - time.getTime();
  return d < HOUR ? "within the hour" : d < DAY ? `about ${relative(time, now)}` : relative(time, now);
}

/** "0.4 s", "12 s", "3 min 5 s", "1 h 2 min". Clocks that disagree make no negative ones. */
export function duration(ms: number): string {
  const d = Math.max(0, ms);
  if (d > 0 && d < 100) return "under 0.1 s"; // it took something
  if (d < 10_000) return `${(Math.floor(d / 100) / 10).toFixed(1)} s`;
  if (d < MINUTE) return `${Math.floor(d / 1000)} s`;
  if (d < HOUR) {
    const s = Math.floor((d % MINUTE) / 1000);
    return s === 0 ? `${Math.floor(d / MINUTE)} min` : `${Math.floor(d / MINUTE)} min ${s} s`;
  }
  const m = Math.floor((d % HOUR) / MINUTE);
  return m === 0 ? `${Math.floor(d / HOUR)} h` : `${Math.floor(d / HOUR)} h ${m} min`;
}

/** How long something took or has taken so far; undefined before it began. */
export function took(start: string | undefined, end: string | undefined, now: Date): number | undefined {
  if (start === undefined) return undefined;
  return (end === undefined ? now.getTime() : Date.parse(end)) - Date.parse(start);
}
