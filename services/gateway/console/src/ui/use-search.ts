import { useEffect, useRef, useState } from "react";
import { LogSearch, type LogLines } from "../lib/log";
import { plain } from "../lib/text";

/** How many lines are looked at before keys, scrolling and new lines have their turn: a few milliseconds. */
const turn = 2_000;

export interface Found {
  /** The indexes of the lines that hold the query, rising; the first `count` of them are meant. */
  hits: readonly number[];
  count: number;
  /** How many lines were looked at since the log was opened, for all queries: what tests hold it to. */
  scanned: number;
  /** Lines are left to look at. */
  more: boolean;
}

const nothing: Found = { hits: [], count: 0, scanned: 0, more: false };

/** Searches the lines a turn at a time, also those that come; another query gives the one before up. */
export function useSearch(lines: LogLines, query: string): Found {
  const wanted = query.trim();
  const [state, setState] = useState<{ query: string; found: Found }>({ query: "", found: nothing });
  const looked = useRef(0);
  const search = useRef<{ query: string; search: LogSearch }>(undefined);
  useEffect(() => {
    if (wanted === "") {
      search.current = undefined;
      return;
    }
    if (search.current?.query !== wanted) {
      const visible = (text: string) => {
        looked.current++;
        return plain(text);
      };
      search.current = { query: wanted, search: new LogSearch(wanted, visible) };
    }
    const at = search.current.search;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const step = () => {
      const more = at.scan(lines, turn);
      setState({ query: wanted, found: { hits: at.hits, count: at.hits.length, scanned: looked.current, more } });
      timer = more ? setTimeout(step) : undefined;
    };
    step();
    return () => clearTimeout(timer);
  }, [lines, wanted]);
  return wanted === "" ? nothing : state.query === wanted ? state.found : { ...nothing, more: true };
}
