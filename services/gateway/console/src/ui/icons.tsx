// Every drawing of the console: drawn for it, 16 px, lines in the colour of the text, one shape for one
// meaning. Bitbucket's mark is Atlassian's to draw: a repository stands for it.

const lines = {
  // How something stands.
  done: "M3 8.5l3.2 3.2L13 4.8",
  failed: "M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6",
  running: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5",
  waiting: "M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM8 5v3.2l2.1 1.4",
  stopped: "M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM4.2 4.2l7.6 7.6",
  replaced: "M2.8 12V9.2A3.4 3.4 0 0 1 6.2 5.8h6.6M10 2.8l3 3-3 3",
  rolledBack: "M3.2 6.2h6.1a3.7 3.7 0 0 1 0 7.4H5.5M6.2 3.2l-3 3 3 3",
  skipped: "M3 4.2L6.8 8 3 11.8M7.6 4.2L11.4 8l-3.8 3.8M13.6 4v8",
  behind: "M8 3v6.4M5 6.8l3 3 3-3M3.2 13h9.6",
  none: "M12 8a4 4 0 1 1-8 0 4 4 0 0 1 8 0z",
  off: "M12 8a4 4 0 1 1-8 0 4 4 0 0 1 8 0zM6.4 8h3.2",
  unknown: "M5.8 5.9a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.5M8 12v.2",
  alert: "M8 2.6l6 10.6H2zM8 6.6v3M8 11.4v.2",
  note: "M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM8 7.4v3.4M8 5.2v.2",
  // Where something leads, and what a button does.
  up: "M8 13V3.4M4 7.2l4-4 4 4",
  down: "M8 3v9.6M4 8.8l4 4 4-4",
  open: "M4 6.4l4 4 4-4",
  close: "M4 9.6l4-4 4 4",
  next: "M6.2 4l4 4-4 4",
  external: "M9.2 3h3.8v3.8M13 3L7.6 8.4M11.4 9.6V13H3V4.6h3.4",
  search: "M11.2 7a4.2 4.2 0 1 1-8.4 0 4.2 4.2 0 0 1 8.4 0zM10.2 10.2L13.4 13.4",
  menu: "M2.8 4.4h10.4M2.8 8h10.4M2.8 11.6h10.4",
  more: "M3.4 8h.1M8 8h.1M12.6 8h.1",
  add: "M8 3v10M3 8h10",
  download: "M8 2.6v7M5 6.8l3 3 3-3M2.8 10.6V13h10.4v-2.4",
  // What something is.
  apps: "M2.8 2.8h4v4h-4zM9.2 2.8h4v4h-4zM2.8 9.2h4v4h-4zM9.2 9.2h4v4h-4z",
  why: "M13.5 8a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM6.4 6.6a1.6 1.6 0 1 1 2.4 1.4c-.5.3-.8.6-.8 1.1M8 11v.1",
  activity: "M1.8 8.4h2.8l2-5 3 9.4 2-4.4h2.6",
  integrations: "M5.6 2.4v3M10.4 2.4v3M4 5.4h8v2.2a4 4 0 0 1-8 0zM8 11.6v2.2",
  notifications: "M4 10.8V7a4 4 0 0 1 8 0v3.8l1.2 1.2H2.8zM6.8 13.8h2.4",
  members: "M8 7.4a2.6 2.6 0 1 0 0-5.2 2.6 2.6 0 0 0 0 5.2zM2.8 13.8a5.2 5.2 0 0 1 10.4 0",
  workspaces: "M2.4 13.4V5.2L8 2.4l5.6 2.8v8.2zM6 13.4V9.6h4v3.8",
  apiKeys: "M10.2 8.8a3.2 3.2 0 1 0-3-3L2.6 10.4v3h3v-2h2v-1.6zM11 5v.1",
  sessions: "M2.4 3.4h11.2v7.2H2.4zM5.6 13.4h4.8",
  keys: "M1.8 4.2h12.4v7.6H1.8zM4.4 6.8v.1M6.8 6.8v.1M9.2 6.8v.1M11.6 6.8v.1M5.4 9.4h5.2",
  doctor:
    "M4.6 2.6v3.2a2.6 2.6 0 0 0 5.2 0V2.6M7.2 8.4v1.8a3 3 0 0 0 6 0V8.6M13.2 8.4a1.2 1.2 0 1 0 0-2.4 1.2 1.2 0 0 0 0 2.4z",
  repository: "M4.6 2.4H13v11.2H4.6A1.6 1.6 0 0 1 3 12V4a1.6 1.6 0 0 1 1.6-1.6zM3 11.4A1.6 1.6 0 0 1 4.6 10H13M6 5.2h4",
  branch:
    "M5 5.8v4.6M5 5.8a1.6 1.6 0 1 0 0-3.2 1.6 1.6 0 0 0 0 3.2zM5 13.6a1.6 1.6 0 1 0 0-3.2 1.6 1.6 0 0 0 0 3.2zM11 7.4a1.6 1.6 0 1 0 0-3.2 1.6 1.6 0 0 0 0 3.2zM11 7.4c0 2-1.6 2.4-6 2.8",
  locked: "M3.6 7.2h8.8v6.2H3.6zM5.4 7.2V5a2.6 2.6 0 0 1 5.2 0v2.2",
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
      className={`icon icon-${name}`}
      viewBox="0 0 16 16"
      width="16"
      height="16"
      aria-hidden="true"
      fill={filled ? "currentColor" : "none"}
      stroke={filled ? "none" : "currentColor"}
      strokeWidth="1.6"
      strokeLinecap="round"
      strokeLinejoin="round"
    >
      <path d={path} />
    </svg>
  );
}
