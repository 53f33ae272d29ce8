import { useRef, useState } from "react";

const delay = 150;

/**
 * What is searched for as one types. The answer is asked for with the key itself, before anything is
 * drawn, and the list changes once, when it is here; one that takes long shows as loading meanwhile.
 */
export function useAsked(load: (query: string) => Promise<unknown>): { asked: string; ask: (typed: string) => void } {
  const [asked, setAsked] = useState("");
  const wanted = useRef("");
  const ask = (typed: string) => {
    const query = typed.trim();
    if (query === wanted.current) return;
    wanted.current = query;
    const show = () => {
      if (wanted.current === query) setAsked(query);
    };
    const timer = setTimeout(show, delay);
    const done = () => {
      clearTimeout(timer);
      show();
    };
    load(query).then(done, done); // a failure is told by the query that is shown
  };
  return { asked, ask };
}
