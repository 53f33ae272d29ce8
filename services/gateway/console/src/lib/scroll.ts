// Where the reader was on each page of the browser's history: Back, Forward and a reload lead there again, another page
// begins at its top. The browser's own restoration comes before what is loaded is there.
import { useLayoutEffect, useRef } from "react";
import { NavigationType, useLocation, useNavigationType } from "react-router";

const stored = "devpilot.scroll";
const most = 100;
/** How long what is still loading is waited for. */
const patience = 10_000;

const places = new Map<string, number>(read());
let place = "";

function read(): [string, number][] {
  try {
    return JSON.parse(sessionStorage.getItem(stored) ?? "[]") as [string, number][];
  } catch {
    return []; // no storage, or not ours
  }
}

function note(): void {
  places.delete(place);
  places.set(place, scrollY);
}

function keep(): void {
  sessionStorage.setItem(stored, JSON.stringify(Array.from(places).slice(-most)));
}

/** Keeps and restores the place on every page. */
export function useScroll(): void {
  const { key, pathname, search } = useLocation();
  const type = useNavigationType();
  const before = useRef<string>(undefined);
  useLayoutEffect(() => {
    history.scrollRestoration = "manual";
    addEventListener("scroll", note, { passive: true });
    addEventListener("pagehide", keep);
    return () => {
      removeEventListener("scroll", note);
      removeEventListener("pagehide", keep);
    };
  }, []);
  useLayoutEffect(() => {
    place = `${key} ${pathname}${search}`;
    const another = before.current !== undefined && before.current !== pathname;
    before.current = pathname;
    const wanted = type === NavigationType.Pop ? places.get(place) : undefined;
    if (wanted === undefined) {
      if (another) scrollTo(0, 0);
      return undefined;
    }
    return restore(wanted);
  }, [key, pathname, search, type]);
}

/** Goes there as soon as the page is long enough, unless the reader moves first. */
function restore(y: number): () => void {
  const moves = ["wheel", "touchstart", "keydown", "mousedown"] as const;
  const observer = new ResizeObserver(() => go());
  const timer = setTimeout(() => stop(), patience);
  const stop = () => {
    observer.disconnect();
    clearTimeout(timer);
    for (const m of moves) removeEventListener(m, stop);
  };
  const go = () => {
    if (document.documentElement.scrollHeight - innerHeight < y) return;
    stop();
    scrollTo(0, y);
  };
  for (const m of moves) addEventListener(m, stop, { passive: true });
  observer.observe(document.body);
  return stop;
}
