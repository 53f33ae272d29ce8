import { useEffect, useId, useRef, useState, type ReactNode } from "react";
import { useVirtualizer } from "@tanstack/react-virtual";

interface Props<T> {
  label: string;
  /** What stands above tells eyes the label already; readers still get it. */
  labelled?: boolean;
  description?: ReactNode;
  error?: string | undefined;
  placeholder?: string;
  /** What is chosen; its text stands in the field. */
  value: T | undefined;
  text: (item: T) => string;
  onChoose: (item: T) => void;
  /** What is searched for; the caller answers with items. */
  query: string;
  onQuery: (query: string) => void;
  items: readonly T[];
  /** How many there are in all; the list is as long as that, and asks for what it lacks. */
  total: number;
  onNeed: () => void;
  id: (item: T) => string;
  row: (item: T) => ReactNode;
  /** What stands in place of rows, such as "Nothing matches". */
  empty: ReactNode;
  /** Lines under the list, such as when it was fetched. */
  footer?: ReactNode;
  loading: boolean;
  disabled?: boolean;
}

const rowHeight = 44;

/**
 * A combobox as the ARIA practices describe it: focus stays in the field, the active row is named by
 * aria-activedescendant. Only the rows in sight exist, so that ten thousand cost no more than ten;
 * aria-setsize and aria-posinset tell readers how many there are.
 */
export function Combobox<T>(p: Props<T>) {
  const [open, setOpen] = useState(false);
  const [active, setActive] = useState(0);
  const base = useId();
  const input = useRef<HTMLInputElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const count = Math.max(p.total, p.items.length);
  const virtual = useVirtualizer({
    count: open ? count : 0,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 6,
    initialRect: { width: 400, height: 320 },
  });
  const rows = virtual.getVirtualItems();
  const lastRow = rows.at(-1)?.index ?? -1;
  const { onNeed } = p;
  const short = open && lastRow >= p.items.length && p.items.length < p.total;
  useEffect(() => {
    if (short) onNeed();
  }, [short, p.items.length, onNeed]);
  useEffect(() => {
    setActive(0);
    if (open) virtual.scrollToIndex(0);
    // Only a new question begins at the top again; the virtualizer is the same one.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [p.query]);

  const choose = (item: T | undefined) => {
    if (item === undefined) return;
    p.onChoose(item);
    p.onQuery("");
    setOpen(false);
  };
  const move = (to: number) => {
    const bounded = Math.min(Math.max(to, 0), Math.max(p.items.length - 1, 0));
    setActive(bounded);
    virtual.scrollToIndex(bounded);
  };
  const onKeyDown = (e: React.KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: 7, PageUp: -7 };
    const step = steps[e.key];
    if (step !== undefined) {
      e.preventDefault();
      if (open) move(active + step);
      else setOpen(true);
    } else if (e.key === "Enter" && open) {
      e.preventDefault();
      choose(p.items[active]);
    } else if (e.key === "Escape" && open) {
      e.preventDefault();
      e.stopPropagation();
      setOpen(false);
      p.onQuery("");
    } else if (e.key === "Tab") {
      setOpen(false);
    }
  };
  const option = (i: number) => `${base}-o${i}`;
  const activeShown = open && rows.some((r) => r.index === active) && active < p.items.length;
  return (
    <div
      className="field combobox"
      onBlur={(e) => {
        if (!e.currentTarget.contains(e.relatedTarget)) {
          setOpen(false);
          p.onQuery("");
        }
      }}
    >
      <label className={p.labelled === true ? "hidden" : undefined} htmlFor={`${base}-i`}>
        {p.label}
      </label>
      <div className="combobox-input">
        <input
          id={`${base}-i`}
          ref={input}
          role="combobox"
          aria-expanded={open}
          aria-controls={`${base}-l`}
          aria-autocomplete="list"
          aria-activedescendant={activeShown ? option(active) : undefined}
          aria-invalid={p.error !== undefined || undefined}
          aria-describedby={`${base}-d`}
          autoComplete="off"
          spellCheck={false}
          disabled={p.disabled}
          placeholder={p.value === undefined ? p.placeholder : p.text(p.value)}
          value={open ? p.query : p.value === undefined ? "" : p.text(p.value)}
          onFocus={() => input.current?.select()}
          onClick={() => setOpen(true)}
          onChange={(e) => {
            setOpen(true);
            p.onQuery(e.target.value);
          }}
          onKeyDown={onKeyDown}
        />
        <span className="chevron" aria-hidden="true">
          ▾
        </span>
        <div className="popover" hidden={!open}>
          <div
            className="options"
            ref={scroller}
            id={`${base}-l`}
            role="listbox"
            aria-label={p.label}
            aria-busy={p.loading}
            // A press in the list must not take the focus from the field.
            onMouseDown={(e) => e.preventDefault()}
          >
            {open && (
              <div role="presentation" style={{ height: virtual.getTotalSize(), position: "relative" }}>
                {rows.map((r) => {
                  const item = p.items[r.index];
                  return (
                    <div
                      key={r.key}
                      id={option(r.index)}
                      role="option"
                      aria-selected={item !== undefined && p.value !== undefined && p.id(item) === p.id(p.value)}
                      aria-setsize={count}
                      aria-posinset={r.index + 1}
                      className={`option ${r.index === active ? "active" : ""}`}
                      style={{ position: "absolute", top: 0, left: 0, right: 0, height: rowHeight, transform: `translateY(${r.start}px)` }}
                      onClick={() => choose(item)}
                      onMouseMove={() => setActive(r.index)}
                    >
                      {item === undefined ? <span className="soft">Loading…</span> : p.row(item)}
                    </div>
                  );
                })}
              </div>
            )}
          </div>
          {open && count === 0 && (
            <div className="option-empty" role="status">
              {p.loading ? "Loading…" : p.empty}
            </div>
          )}
          {p.footer !== undefined && p.footer !== false && <div className="popover-footer">{p.footer}</div>}
        </div>
      </div>
      <div id={`${base}-d`} className={p.error === undefined ? "soft" : "field-error"}>
        {p.error ?? p.description}
      </div>
    </div>
  );
}
