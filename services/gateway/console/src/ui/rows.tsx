import type { KeyboardEvent, ReactNode } from "react";
import { Link, type LinkProps } from "react-router";

/** A list of which each row opens what it names, wherever it is pressed; arrows go from row to row. */
export function Rows({
  label,
  children,
  className,
  busy = false,
}: {
  label: string;
  children: ReactNode;
  className?: string;
  /** The rows are those of before, and others are on their way. */
  busy?: boolean;
}) {
  return (
    <ul className={`row-list ${className ?? ""}`} aria-label={label} aria-busy={busy} onKeyDown={onListKeys}>
      {children}
    </ul>
  );
}

/** The one link of a row (an element of class "row") that is meant when the row is pressed anywhere. Others in it stay what they are. */
export function RowLink({ className, ...rest }: LinkProps) {
  return <Link {...rest} data-row className={`row-link ${className ?? ""}`} />;
}

/** Arrow keys walk through the links of a list. */
export function onListKeys(e: KeyboardEvent<HTMLElement>): void {
  if (e.key !== "ArrowDown" && e.key !== "ArrowUp" && e.key !== "Home" && e.key !== "End") return;
  const links = Array.from(e.currentTarget.querySelectorAll<HTMLElement>("[data-row]"));
  const at = links.indexOf(document.activeElement as HTMLElement);
  if (at < 0) return;
  e.preventDefault();
  const to = e.key === "Home" ? 0 : e.key === "End" ? links.length - 1 : at + (e.key === "ArrowDown" ? 1 : -1);
  links[Math.min(Math.max(to, 0), links.length - 1)]?.focus();
}

/** Moves the focus to the next or the one before of the page's rows; from elsewhere to the first. Says whether there are any. */
export function toRow(by: 1 | -1): boolean {
  const links = Array.from(document.querySelectorAll<HTMLElement>("main [data-row]"));
  const at = links.indexOf(document.activeElement as HTMLElement);
  links[Math.min(Math.max(at < 0 ? 0 : at + by, 0), links.length - 1)]?.focus();
  return links.length > 0;
}
