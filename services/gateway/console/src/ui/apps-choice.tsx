import { useState, type ReactNode } from "react";
import { useInfiniteQuery } from "@tanstack/react-query";
import { appsQuery } from "../api/apps";
import { usePlace } from "../lib/workspace";
import { Check, TextField } from "./settings/parts";

const words = (text: string) => text.split(/[\s,;]+/).filter((w) => w !== "");

/** Some of the workspace's apps by their ids: ticked in a list, or typed where there are too many for one. */
export function AppsChoice({
  all: whole,
  most,
  chosen,
  onChange,
  error,
}: {
  /** What it means that none is chosen, such as "all". */
  all: string;
  /** How many may be chosen. */
  most: number;
  chosen: ReadonlySet<string>;
  onChange: (chosen: ReadonlySet<string>) => void;
  error: string | undefined;
}) {
  const { ws } = usePlace();
  const apps = useInfiniteQuery(appsQuery(ws));
  const [text, setText] = useState(() => [...chosen].join(" "));
  const ids = apps.data?.pages.flatMap((p) => p.apps.map((a) => a.id)) ?? [];
  if (apps.hasNextPage)
    return (
      <TextField
        label="Only these apps"
        value={text}
        onChange={(t) => {
          setText(t);
          onChange(new Set(words(t)));
        }}
        error={error}
        hint={`Their ids, with spaces between; at most ${most}. Empty: ${whole}.`}
      />
    );
  if (ids.length === 0) return null;
  return (
    <Choice legend={`Only these apps; none ticked: ${whole}`} error={error}>
      {[...new Set([...ids, ...chosen])].map((a) => (
        <Check key={a} label={a} checked={chosen.has(a)} onChange={(on) => onChange(toggled(chosen, a, on))} />
      ))}
    </Choice>
  );
}

/** Things to tick that belong together. */
export function Choice({
  legend,
  error,
  children,
}: {
  legend: string;
  error: string | undefined;
  children: ReactNode;
}) {
  return (
    <fieldset className="plain">
      <legend>{legend}</legend>
      {children}
      {error !== undefined && <p className="field-error">{error}</p>}
    </fieldset>
  );
}

/** The set with one thing in it, or without it. */
export function toggled<T>(set: ReadonlySet<T>, one: T, on: boolean): Set<T> {
  const next = new Set(set);
  if (on) next.add(one);
  else next.delete(one);
  return next;
}
