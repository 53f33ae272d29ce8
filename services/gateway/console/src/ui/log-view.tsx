import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useLocation, useNavigate, useSearchParams } from "react-router";
import { fragment, holds, linesOf } from "../lib/log";
import { ansi, plain } from "../lib/text";
import { exact, second } from "../lib/time";
import { deploymentLook, ended, stageName } from "../lib/words";
import { Banner, Button, Skeleton } from "./basics";
import { Icon } from "./icons";
import type { LogState } from "./use-log";
import { useSearch } from "./use-search";

// As high as styles/deployment.css makes it: what a finger presses is at least 24 px (WCAG 2.2, 2.5.8). At a
// desk the field "Line" does the same as a line's number, and is large enough.
const lineHeight = matchMedia("(pointer: coarse)").matches ? 24 : 20;
// The list is told of rows in blocks of this many: it goes over all of its rows when their number changes.
const block = 4096;

export function LogView({
  ws,
  app,
  number,
  over,
  ran,
  log,
}: {
  ws: string;
  app: string;
  number: number;
  over: boolean;
  ran: boolean;
  log: LogState;
}) {
  const { lines, end, trouble, opened } = log;
  const [query] = useSearchParams();
  const { hash, pathname, search: searchText } = useLocation();
  const navigate = useNavigate();
  const [text, setText] = useState(query.get("q") ?? "");
  const [wrap, setWrap] = useState(true);
  const target = useMemo(() => linesOf(hash), [hash]);
  // After a reload the reader is at the same line.
  const position = `devpilot.log ${ws}/${app}/${number}`;
  const [kept] = useState(() => (target === undefined ? Number(sessionStorage.getItem(position)) : 0));
  const [following, setFollowing] = useState(target === undefined && kept === 0);
  const scroller = useRef<HTMLDivElement>(null);
  const leaving = useRef(false); // the reader turned the wheel up, and the page has not moved yet
  const led = useRef(false); // to a line, and the reader has not moved since: where that is the end, it is not followed
  const { hits, count, scanned, more } = useSearch(lines, text);
  const [hit, setHit] = useState(0);
  const rows = Math.ceil(lines.length / block) * block;
  const virtual = useVirtualizer({
    count: rows,
    getScrollElement: () => scroller.current,
    estimateSize: () => lineHeight,
    overscan: 20,
    initialRect: { width: 800, height: 500 },
  });
  const lastRow = lines.length - 1;
  // Rows without a line are at the end and have no height of their own.
  const height = virtual.getTotalSize() - (rows - lines.length) * lineHeight;

  // A reader at the end stays there; one who scrolled up is left alone.
  useEffect(() => {
    if (following && !leaving.current && lastRow >= 0) virtual.scrollToEnd();
  }, [following, lastRow, virtual]);
  const { first } = lines;
  // The address names lines: once the first of them is here, it is shown.
  const reached = target !== undefined && target.from - first < lines.length;
  useEffect(() => {
    if (!reached || target === undefined) return;
    led.current = true;
    setFollowing(false);
    virtual.scrollToIndex(Math.max(target.from - first, 0), { align: target.to === target.from ? "center" : "start" });
  }, [reached, target, first, virtual]);
  const back = kept > 0 && kept - first < lines.length;
  useEffect(() => {
    if (!back) return;
    led.current = true;
    virtual.scrollToIndex(Math.max(kept - first, 0), { align: "start" });
  }, [back, kept, first, virtual]);
  useEffect(() => virtual.measure(), [wrap, virtual]);
  useEffect(() => {
    if (following) sessionStorage.removeItem(position);
  }, [following, position]);

  // Who turns the wheel up leaves the end now: a jump to a line that comes before the page has moved is given up,
  // and where that jump arrives all the same is not taken for the reader's.
  const onWheel = (e: React.WheelEvent) => {
    led.current = false;
    const up = e.deltaY < 0 && (scroller.current?.scrollTop ?? 0) > 0;
    if (!up) {
      leaving.current = false;
      return;
    }
    leaving.current = true;
    virtual.cancelScroll();
    setFollowing(false);
  };
  const moves = () => {
    led.current = false;
  };
  const onScroll = () => {
    const el = scroller.current;
    if (el === null) return;
    if (leaving.current && el.scrollTop >= lastScroll.current) {
      lastScroll.current = el.scrollTop;
      return;
    }
    leaving.current = false;
    const atEnd = el.scrollHeight - el.scrollTop - el.clientHeight < lineHeight * 2;
    // Up leaves the end; that more lines came below does not.
    const follows = (atEnd && !led.current) || (following && lastScroll.current <= el.scrollTop);
    if (follows !== following) setFollowing(follows);
    lastScroll.current = el.scrollTop;
    const top = virtual.getVirtualItemForOffset(el.scrollTop);
    if (!follows && top !== undefined) sessionStorage.setItem(position, String(first + top.index));
  };
  const lastScroll = useRef(0);
  const show = useCallback(
    (n: number) => {
      const at = hits[n];
      if (at === undefined) return;
      setHit(n);
      led.current = true;
      setFollowing(false);
      virtual.scrollToIndex(at, { align: "center" });
    },
    [hits, virtual],
  );
  // The field keeps its own text: the address follows when the writer pauses, and eats no key.
  useEffect(() => {
    const t = setTimeout(() => {
      if (location.pathname !== pathname) return; // the reader has left for a page that is still loading
      const q = new URLSearchParams(location.search);
      if (text === (q.get("q") ?? "")) return;
      if (text === "") q.delete("q");
      else q.set("q", text);
      // The line that the address names stays named.
      void navigate({ pathname, search: q.size === 0 ? "" : `?${q}`, hash: location.hash }, { replace: true });
    }, 300);
    return () => clearTimeout(t);
    // Only typing starts the wait; the router's function is another one at each navigation.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [text]);
  const noMatch = count === 0 ? "No line holds it." : undefined;
  const download = `/v1/workspaces/${encodeURIComponent(ws)}/apps/${encodeURIComponent(app)}/deployments/${number}/log?format=text`;
  const goTo = (line: number) => {
    setFollowing(false);
    void navigate(
      { pathname, search: searchText, hash: fragment({ from: line, to: line }) },
      { replace: true, preventScrollReset: true },
    );
  };
  return (
    <section className="log" aria-label="Log">
      <div className="log-bar">
        <input
          type="search"
          data-search
          aria-label="Search the log"
          placeholder="Search the log  /"
          value={text}
          onChange={(e) => {
            setHit(0);
            setText(e.target.value);
          }}
          onKeyDown={(e) => {
            if (e.key !== "Enter" || count === 0) return;
            e.preventDefault();
            show((hit + (e.shiftKey ? count - 1 : 1)) % count);
          }}
        />
        {text !== "" && (
          <span className="matches">
            <Button className="small" forbidden={noMatch} onClick={() => show((hit + count - 1) % count)}>
              <Icon name="close" />
              <span className="hidden">Previous match</span>
            </Button>
            <Button className="small" forbidden={noMatch} onClick={() => show((hit + 1) % count)}>
              <Icon name="open" />
              <span className="hidden">Next match</span>
            </Button>
          </span>
        )}
        <span className="soft num" role="status" data-scanned={scanned}>
          {text !== "" &&
            (count > 0
              ? `${Math.min(hit + 1, count)} of ${count}${more ? "…" : ""} lines`
              : more
                ? "searching…"
                : "no line")}
        </span>
        <input
          className="line-field"
          inputMode="numeric"
          aria-label="Go to line"
          placeholder="Line"
          onKeyDown={(e) => {
            const line = Number(e.currentTarget.value.replace(/^L/i, ""));
            if (e.key === "Enter" && Number.isInteger(line) && line > 0) goTo(line);
          }}
        />
        <label className="check">
          <input type="checkbox" checked={wrap} onChange={(e) => setWrap(e.target.checked)} /> Wrap
        </label>
        {!following && end === undefined && (
          <Button
            className="small"
            onClick={() => {
              leaving.current = led.current = false;
              setFollowing(true);
            }}
          >
            Follow
          </Button>
        )}
        <a className="button plain small" href={download} download={`${app}-${number}.log`}>
          Download
        </a>
      </div>
      {trouble !== undefined && (
        <Banner tone="warn" role="status">
          {trouble}
        </Banner>
      )}
      {!opened && lines.length === 0 ? (
        <Skeleton rows={8} />
      ) : lines.length === 0 ? (
        <p className="log-empty soft">
          {!ran
            ? "This deployment never ran, so there is no log."
            : end !== undefined || over
              ? "The log is empty, or older than Devpilot keeps logs (30 days)."
              : "Nothing was written yet."}
        </p>
      ) : (
        // A region that scrolls is reached by keyboard.
        <div
          className={wrap ? "lines wrap" : "lines"}
          ref={scroller}
          onScroll={onScroll}
          onWheel={onWheel}
          onKeyDownCapture={moves}
          onPointerDownCapture={moves}
          tabIndex={0}
          role="group"
          aria-label="Lines of the log"
        >
          <div style={{ height, position: "relative" }}>
            {virtual.getVirtualItems().map((row) => {
              const r = lines.at(row.index);
              if (r === undefined) return null;
              const before = row.index > 0 ? lines.at(row.index - 1) : undefined;
              const stageBegins = r.stage !== before?.stage;
              const hookBegins = r.hook !== undefined && r.hook !== "" && (r.hook !== before?.hook || stageBegins);
              const classes = [
                "line",
                r.stream === "STDERR" ? "stderr" : "",
                r.stream === "SYSTEM" ? "system" : "",
                holds(hits, row.index) ? "found" : "",
                target !== undefined && r.line >= target.from && r.line <= target.to ? "target" : "",
              ];
              return (
                <div
                  key={row.key}
                  data-index={row.index}
                  ref={virtual.measureElement}
                  className={classes.filter((c) => c !== "").join(" ")}
                  style={{ position: "absolute", top: 0, left: 0, transform: `translateY(${row.start}px)` }}
                >
                  {stageBegins && r.stage !== undefined && <div className="line-stage">{stageName(r.stage)}</div>}
                  {hookBegins && (
                    <div className="line-stage line-hook">
                      Hook: <bdi>{plain(r.hook ?? "")}</bdi>
                    </div>
                  )}
                  <div className="line-row">
                    <a
                      className="line-number"
                      href={`#L${r.line}`}
                      aria-label={`Line ${r.line}`}
                      tabIndex={-1}
                      onClick={(e) => {
                        e.preventDefault();
                        goTo(r.line);
                      }}
                    >
                      {r.line}
                    </a>
                    {r.time !== undefined && (
                      <time className="line-time" dateTime={r.time} title={exact(new Date(r.time))}>
                        {second(r.time)}
                      </time>
                    )}
                    <bdi className="line-text">
                      {r.stream === "STDERR" && <span className="hidden">error output: </span>}
                      {ansi(r.text).map((s, i) =>
                        s.classes === "" ? (
                          s.text
                        ) : (
                          <span key={i} className={s.classes}>
                            {s.text}
                          </span>
                        ),
                      )}
                    </bdi>
                  </div>
                </div>
              );
            })}
          </div>
        </div>
      )}
      <div className="log-end soft" role="status">
        {end !== undefined && ended(end)
          ? `End of the log: ${deploymentLook(end).word.toLowerCase()}.`
          : end !== undefined
            ? "The log goes on."
            : opened
              ? "Following."
              : ""}
      </div>
    </section>
  );
}
