// Every drawing of the console: 16 px, lines in the colour of the text, one shape for one meaning.

const lines = {
  done: "M3 8.5l3.2 3.2L13 4.8",
  failed: "M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6",
  running: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5",
  waiting: "M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM8 5v3.2l2.1 1.4",
  stopped: "M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM4.2 4.2l7.6 7.6",
  replaced: "M2.8 12V9.2A3.4 3.4 0 0 1 6.2 5.8h6.6M10 2.8l3 3-3 3",
  none: "M12 8a4 4 0 1 1-8 0 4 4 0 0 1 8 0z",
  alert: "M8 2.6l6 10.6H2zM8 6.6v3M8 11.4v.2",
  note: "M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM8 7.4v3.4M8 5.2v.2",
  up: "M8 13V3.4M4 7.2l4-4 4 4",
  down: "M8 3v9.6M4 8.8l4 4 4-4",
  open: "M4 6.4l4 4 4-4",
} as const;

const solid = {
  on: "M12 8a4 4 0 1 1-8 0 4 4 0 0 1 8 0z",
  logo: "M8 2l6.6 12H1.4z",
} as const;

export type IconName = keyof typeof lines | keyof typeof solid;

/** A drawing beside words that say the same: screen readers pass over it. */
export function Icon({ name }: { name: IconName }) {
  const filled = name in solid;
  const path = { ...lines, ...solid }[name];
  return (
    <svg
      className="icon"
      viewBox="0 0 16 16"
      width="16"
      height="16"
      aria-hidden="true"
      fill={filled ? "currentColor" : "none"}
      stroke={filled ? "none" : "currentColor"}
      strokeWidth="1.75"
      strokeLinecap="round"
      strokeLinejoin="round"
    >
      <path d={path} />
    </svg>
  );
}
