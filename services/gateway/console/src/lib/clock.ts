// The server's clock, and a tick that components share. The browser's own may be hours or days wrong, and may be set
// while the page is open.
import { useSyncExternalStore } from "react";

let offset = 0;
/** How far the offset may be from the truth (ms); nothing is known yet. */
let doubt = Infinity;
let current = Date.now();
const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;
let jumped: () => void = () => undefined;

/** A difference of less is not worth a jump of all times on the page. */
const least = 1000;

/**
 * Learns the offset from an answer: the server's time lies between sending and receiving. `exact` is how long the
 * time that it names lasts (ms): a second for the Date of HTTP.
 */
export function learn(serverTime: number, exact: number, sent: number, received: number): void {
  if (Number.isNaN(serverTime)) return;
  const measured = serverTime + exact / 2 - (sent + received) / 2;
  const about = (exact + Math.max(0, received - sent)) / 2;
  // What agrees with what is known teaches only when it is surer of it.
  if (Math.abs(measured - offset) <= about + Math.min(doubt, least)) {
    doubt = Math.min(doubt, about);
    return;
  }
  offset = measured;
  doubt = about;
  tick();
}

/** Has somebody ask for the server's time when the browser's clock was set, or the machine slept. */
export function onJump(ask: () => void): () => void {
  jumped = ask;
  return () => {
    jumped = () => undefined;
  };
}

export function serverNow(): number {
  return Date.now() + offset;
}

// Between the two lies the same as long as nobody sets the clock.
const between = () => Date.now() - performance.now();
let before = between();

function tick(): void {
  const now = between();
  if (Math.abs(now - before) > 2 * least) jumped();
  before = now;
  current = serverNow();
  for (const l of listeners) l();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  current = serverNow();
  timer ??= setInterval(tick, 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0 && timer !== undefined) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** The server's time, rounded down to the step (ms), so that a component renders no more often. */
export function useNow(step = 1000): Date {
  const read = () => Math.floor(current / step) * step;
  const at = useSyncExternalStore(subscribe, read, read);
  return new Date(step >= 10_000 ? Math.max(at, 0) : at);
}
