import { useEffect, useRef, useState } from "react";

/** A field whose text takes effect when its writer pauses: a request a pause, not one a key. */
export function SearchText({
  label,
  placeholder = label,
  shown = false,
  value,
  onChange,
  search = false,
}: {
  label: string;
  placeholder?: string;
  /** Whether the label stands beside the field, rather than in it. */
  shown?: boolean;
  value: string;
  onChange: (v: string) => void;
  /** The one that the key / leads to. */
  search?: boolean;
}) {
  const [text, setText] = useState(value);
  // What the field itself said comes back as the value, while more may have been typed; others' changes, such as
  // Back's, are shown.
  const said = useRef(value);
  useEffect(() => {
    if (said.current === value) return;
    said.current = value;
    setText(value);
  }, [value]);
  useEffect(() => {
    if (text.trim() === value) return undefined;
    const here = location.pathname;
    const t = setTimeout(() => {
      if (location.pathname !== here) return; // the writer has left for a page that is still loading
      said.current = text.trim();
      onChange(said.current);
    }, 300);
    return () => clearTimeout(t);
    // Only typing starts the wait; the caller's function is another one at each render.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [text]);
  const field = (
    <input
      type="search"
      aria-label={shown ? undefined : label}
      placeholder={shown ? undefined : placeholder}
      value={text}
      onChange={(e) => setText(e.target.value)}
      {...(search ? { "data-search": true } : {})}
    />
  );
  return shown ? (
    <label>
      {label} {field}
    </label>
  ) : (
    field
  );
}
