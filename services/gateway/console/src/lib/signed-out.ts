// Whether the session has ended. Where nothing would be lost the browser is sent to sign in; while somebody is
// filling in a form the page stays, and says so: what was typed is saved after signing in elsewhere.
import { useSyncExternalStore } from "react";

let unsaved = 0;
let out = false;
let leaving = false;
const watchers = new Set<() => void>();

function set(value: boolean): void {
  if (out === value) return;
  out = value;
  for (const w of watchers) w();
}

/** Something on the page is not saved, until the returned function is called. */
export function holdUnsaved(): () => void {
  unsaved++;
  return () => void unsaved--;
}

/** The API said that nobody is signed in. */
export function sessionEnded(): void {
  if (unsaved > 0) set(true);
  else if (!leaving) {
    leaving = true;
    const next = location.pathname + location.search + location.hash; // the line of a log is in the last part
    location.assign(`/sign-in?${new URLSearchParams({ next })}`);
  }
}

/** The API answered to somebody who is signed in. Says whether that is news. */
export function sessionLives(): boolean {
  const news = out;
  set(false);
  return news;
}

export function useSignedOut(): boolean {
  return useSyncExternalStore(
    (w) => {
      watchers.add(w);
      return () => watchers.delete(w);
    },
    () => out,
  );
}
