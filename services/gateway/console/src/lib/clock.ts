// The server's clock, and a tick that components share.
import { useSyncExternalStore } from "react";

let offset = 0;
let current = Date.now();
const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

/** Learns the offset from an answer: the server's time lies between sending and receiving. */
export function learn(serverTime: string, sent: number, received: number): void {
  const server = Date.parse(serverTime);
  if (Number.isNaN(server)) return;
  const measured = server - (sent + received) / 2;
  // A difference of less than a second is not worth a jump, and may be the network's.
  offset = Math.abs(measured) < 1000 ? 0 : measured;
  tick();
}

export function serverNow(): number {
  return Date.now() + offset;
}

function tick(): void {
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
