import { Fragment, useEffect, useId, useState, type ButtonHTMLAttributes, type ReactNode } from "react";
import { Link } from "react-router";
import { asApiError } from "../api/client";
import { Icon } from "./icons";
import { remedyFor } from "../lib/remedy";
import { initials, safe } from "../lib/text";
import type { Look } from "../lib/words";
import { Said } from "./time";

export { Said, Time, Took, Upcoming } from "./time";

/** A status: a shape, a word, and only then a colour. */
export function Status({ look, children }: { look: Look; children?: ReactNode }) {
  return (
    <span className={`status tone-${look.tone}`}>
      <Icon name={look.mark} />
      {look.word}
      {children}
    </span>
  );
}

/** A stranger's text in its own direction, without marks that reorder it. */
export function Text({ children }: { children: string | undefined }) {
  return <bdi>{safe(children ?? "")}</bdi>;
}

type ButtonProps = ButtonHTMLAttributes<HTMLButtonElement> & {
  look?: "primary" | "plain" | "danger" | "quiet";
  busy?: boolean;
  /** Why the button cannot be used, for people: it stays reachable and says so. */
  forbidden?: string | undefined;
};

/**
 * A button. One that a role lacks is not taken away: it can be focused and says whom to ask. While
 * its action runs it keeps its place and cannot be pressed again.
 */
export function Button({ look = "plain", busy, forbidden, children, onClick, className, ...rest }: ButtonProps) {
  const hint = useId();
  const off = busy === true || forbidden !== undefined;
  return (
    <>
      <button
        type="button"
        {...rest}
        className={`button ${look} ${className ?? ""}`}
        aria-disabled={off || undefined}
        aria-busy={busy || undefined}
        aria-describedby={forbidden === undefined ? rest["aria-describedby"] : hint}
        title={forbidden ?? rest.title}
        onClick={(e) => {
          // The second click of a double click comes before the first one has shown that its action runs.
          if (off || (busy !== undefined && e.detail > 1)) e.preventDefault();
          else onClick?.(e);
        }}
      >
        {children}
      </button>
      {forbidden !== undefined && (
        <span id={hint} className="hidden">
          {forbidden}
        </span>
      )}
    </>
  );
}

/** Copies a text and says so, to screen readers too. */
export function Copy({ text, what }: { text: string; what: string }) {
  const [state, setState] = useState<"idle" | "copied" | "failed">("idle");
  useEffect(() => {
    if (state === "idle") return undefined;
    const t = setTimeout(() => setState("idle"), 2500);
    return () => clearTimeout(t);
  }, [state]);
  return (
    <>
      <Button
        className="small"
        onClick={() => {
          // The clipboard needs a secure context; elsewhere the text is there to select.
          const done =
            navigator.clipboard === undefined
              ? Promise.reject(new Error("no clipboard"))
              : navigator.clipboard.writeText(text);
          done.then(
            () => setState("copied"),
            () => setState("failed"),
          );
        }}
      >
        {state === "copied" ? "Copied" : "Copy"}
        <span className="hidden"> {what}</span>
      </Button>
      <span role="status" className={state === "failed" ? "soft" : "hidden"}>
        {state === "copied" ? "Copied" : state === "failed" ? "Select the text and copy it" : ""}
      </span>
    </>
  );
}

/** A value that is there to be copied. */
export function Copyable({ label, value }: { label: string; value: string }) {
  return (
    <div className="copyable">
      <span className="label">{label}</span>
      <code>{value}</code>
      <Copy text={value} what={label} />
    </div>
  );
}

/** Something to know, on top of what it is about. */
export function Banner({
  tone,
  title,
  children,
  actions,
  role,
}: {
  tone: "good" | "warn" | "bad" | "idle";
  title?: ReactNode;
  children?: ReactNode;
  actions?: ReactNode;
  role?: "status" | "alert";
}) {
  const marks = { good: "done", warn: "alert", bad: "failed", idle: "note" } as const;
  return (
    <div className={`banner tone-${tone}`} role={role}>
      <Icon name={marks[tone]} />
      <div className="banner-text">
        {title !== undefined && <strong>{title}</strong>} {children}
      </div>
      {actions !== undefined && <div className="actions">{actions}</div>}
    </div>
  );
}

/** A failure, what to do about it, and one next step. */
export function Failed({
  error,
  workspace,
  retry,
  title,
}: {
  error: unknown;
  workspace?: string;
  retry?: (() => void) | undefined;
  title?: string;
}) {
  const e = asApiError(error);
  const remedy = remedyFor(e.reason);
  return (
    <Banner
      role="alert"
      tone="bad"
      title={title ?? <Said>{e.message}</Said>}
      actions={
        remedy.action !== undefined && workspace !== undefined ? (
          <Link className="button plain" to={remedy.action.to(workspace)}>
            {remedy.action.label}
          </Link>
        ) : retry !== undefined ? (
          <Button onClick={retry}>Try again</Button>
        ) : undefined
      }
    >
      {title !== undefined && (
        <span>
          <Said>{e.message}</Said>{" "}
        </span>
      )}
      {!e.message.includes(remedy.text) && <span>{remedy.text}</span>}
      {e.requestId !== "" && e.status >= 500 && (
        <span className="soft">
          {" "}
          Request id <code>{e.requestId}</code>
        </span>
      )}
    </Banner>
  );
}

/** Stands where content will be. It shows after 200 ms: what comes sooner does not flicker. */
export function Skeleton({ rows = 4 }: { rows?: number }) {
  return (
    <div className="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <div key={i} />
      ))}
    </div>
  );
}

/** The account's picture, or its initials when there is none or it does not load. */
export function Avatar({ name, url }: { name: string; url: string | undefined }) {
  const [broken, setBroken] = useState(false);
  if (url === undefined || url === "" || broken) {
    return (
      <span className="avatar" aria-hidden="true">
        {initials(name)}
      </span>
    );
  }
  return <img className="avatar" src={url} alt="" width={32} height={32} onError={() => setBroken(true)} />;
}

/** The page's title; status comes first where there is one. */
export function useTitle(...parts: (string | undefined)[]): void {
  const title = [...parts.filter((p): p is string => p !== undefined && p !== "").map(safe), "Devpilot"].join(" · ");
  useEffect(() => {
    document.title = title;
  }, [title]);
}

/** The page's heading after the pages that lead to it, and beside it what can be done on the page. */
export function PageTitle({
  children,
  actions,
  path = [],
}: {
  children: ReactNode;
  actions?: ReactNode;
  /** The pages above, from the outermost: name and address. */
  path?: readonly (readonly [name: string, to: string])[];
}) {
  return (
    <div className="page-title">
      <h1>
        {path.map(([name, to]) => (
          <Fragment key={to}>
            <Link to={to} className="crumb">
              {name}
            </Link>
            <span className="crumb-sep">
              <Icon name="next" />
            </span>
          </Fragment>
        ))}
        {children}
      </h1>
      {actions !== undefined && <div className="actions">{actions}</div>}
    </div>
  );
}

export function More({
  query,
}: {
  query: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown };
}) {
  if (!query.hasNextPage) return null;
  return (
    <Button busy={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
      {query.isFetchingNextPage ? "Loading more…" : "Load more"}
    </Button>
  );
}
