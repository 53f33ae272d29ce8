import { useEffect, useRef, useState } from "react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { NavLink, Outlet, useLocation, useNavigate, useParams } from "react-router";
import { follow, useConnected } from "../api/live";
import { infoQuery, meQuery } from "../api/queries";
import { signOut } from "../api/sign-out";
import { onJump } from "../lib/clock";
import { useScroll } from "../lib/scroll";
import { useSignedOut } from "../lib/signed-out";
import { adminOnly, PlaceProvider } from "../lib/workspace";
import { Banner, Button, Failed, Skeleton } from "./basics";
import { later } from "./later";
import { toRow } from "./rows";
import { BeingDeleted, NoSuchWorkspace } from "../pages/missing";
import { Icon } from "./icons";

// Nobody waits for what is seldom opened.
const Palette = later(() => import("./palette"));
const Keys = later(() => import("./keys"));

// The bar that says so would push down what is being pressed: its place is kept from the last visit on.
const emulatorKey = "devpilot.emulator";

type Opened = "palette" | "keys";

/** The frame of every page: navigation, workspace, what is wrong everywhere. */
export function Shell() {
  const { ws = "" } = useParams();
  const me = useQuery(meQuery);
  const info = useQuery(infoQuery);
  const client = useQueryClient();
  const connected = useConnected();
  const signedOut = useSignedOut();
  const location = useLocation();
  const navigate = useNavigate();
  const [menu, setMenu] = useState(false);
  const [opened, setOpened] = useState<Opened>();
  const main = useRef<HTMLElement>(null);
  const header = useRef<HTMLElement>(null);
  const first = useRef(true);
  const emulator = info.data?.emulator ?? localStorage.getItem(emulatorKey) === "yes";
  const known = me.data?.workspaces.some((w) => w.id === ws && w.state === "ACTIVE") ?? false;

  useEffect(() => {
    // Read once: when the person is asked for again, the stream goes on.
    const after = client.getQueryData(meQuery.queryKey)?.lastEventId;
    return known ? follow(ws, client, after) : undefined;
  }, [known, ws, client]);
  useEffect(() => {
    if (known) localStorage.setItem("devpilot.workspace", ws); // no secret: where to come back to
  }, [known, ws]);
  useEffect(() => {
    setMenu(false);
    setOpened(undefined); // of a palette that Back left behind
    if (first.current) first.current = false;
    else main.current?.focus({ preventScroll: true });
  }, [location.pathname]);
  useEffect(() => {
    if (info.data !== undefined) localStorage.setItem(emulatorKey, info.data.emulator ? "yes" : "no");
  }, [info.data]);
  useScroll();
  useEffect(() => onJump(() => void client.invalidateQueries({ queryKey: infoQuery.queryKey })), [client]);
  // As from a dialog: Escape closes it and the focus is where it was.
  const onMenuKey = (e: React.KeyboardEvent) => {
    if (e.key !== "Escape" || !menu) return;
    setMenu(false);
    header.current?.querySelector("button")?.focus();
  };
  useShortcuts(ws, navigate, setOpened);

  if (me.isError && me.data === undefined) {
    return (
      <main className="empty">
        <Failed error={me.error} retry={() => void me.refetch()} />
      </main>
    );
  }
  const workspace = me.data?.workspaces.find((w) => w.id === ws);
  if (me.data !== undefined && workspace === undefined) return <NoSuchWorkspace />;
  return (
    <div className="shell">
      <a className="skip" href="#main">
        Skip to the page
      </a>
      {emulator && (
        <aside className="emulator" aria-label="Emulator">
          <Icon name="alert" />A Bitbucket emulator stands in for Bitbucket.
          <span className="wide"> Nothing here reaches bitbucket.org.</span>{" "}
          <a href={info.data?.bitbucketSiteUrl} target="_blank" rel="noreferrer">
            Open<span className="wide"> the emulator</span>
          </a>
        </aside>
      )}
      <header className="top" ref={header} onKeyDown={onMenuKey}>
        <Button
          look="quiet"
          className="menu-button"
          aria-expanded={menu}
          aria-controls="sidebar"
          onClick={() => setMenu(!menu)}
        >
          <Icon name={menu ? "failed" : "menu"} /> Menu
        </Button>
        <span className="brand" aria-hidden="true">
          <Icon name="logo" /> Devpilot
        </span>
      </header>
      <nav id="sidebar" className={menu ? "sidebar open" : "sidebar"} aria-label="Main" onKeyDown={onMenuKey}>
        <div className="sidebar-inner">
          <span className="brand sidebar-brand" aria-hidden="true">
            <Icon name="logo" /> Devpilot
          </span>
          <label className="hidden" htmlFor="workspace">
            Workspace
          </label>
          <select id="workspace" value={ws} onChange={(e) => void navigate(`/w/${e.target.value}/apps`)}>
            {(me.data?.workspaces ?? []).map((w) => (
              <option key={w.id} value={w.id} disabled={w.state !== "ACTIVE"}>
                {w.displayName}
                {w.state !== "ACTIVE" && " (being deleted)"}
              </option>
            ))}
          </select>
          <Button
            look="quiet"
            className="jump"
            aria-keyshortcuts="Control+K Meta+K"
            onClick={() => setOpened("palette")}
          >
            <span>
              <Icon name="search" /> Jump to…
            </span>{" "}
            <kbd>Ctrl K</kbd>
          </Button>
          <NavLink to={`/w/${ws}/apps`} title="g then a">
            <Icon name="apps" /> Apps
          </NavLink>
          <NavLink to={`/w/${ws}/why`}>
            <Icon name="why" /> Why?
          </NavLink>
          <NavLink to={`/w/${ws}/activity`} title="g then y">
            <Icon name="activity" /> Activity
          </NavLink>
          <div className="nav-group" id="nav-settings">
            Settings
          </div>
          <NavLink to={`/w/${ws}/settings/integrations`} title="g then i">
            <Icon name="integrations" /> Integrations
          </NavLink>
          <NavLink to={`/w/${ws}/settings/notifications`}>
            <Icon name="notifications" /> Notifications
          </NavLink>
          <NavLink to={`/w/${ws}/settings/members`}>
            <Icon name="members" /> Members
          </NavLink>
          <NavLink to={`/w/${ws}/settings/workspaces`}>
            <Icon name="workspaces" /> Workspaces
          </NavLink>
          <NavLink to={`/w/${ws}/settings/api-keys`}>
            <Icon name="apiKeys" /> API keys
          </NavLink>
          <NavLink to={`/w/${ws}/settings/sessions`}>
            <Icon name="sessions" /> Sessions
          </NavLink>
          {me.data?.operator === true && (
            <NavLink to={`/w/${ws}/settings/doctor`}>
              <Icon name="doctor" /> Doctor
            </NavLink>
          )}
          <div className="sidebar-end">
            <a href="/docs/api">
              <Icon name="external" /> API reference
            </a>
            <Button look="quiet" aria-keyshortcuts="?" onClick={() => setOpened("keys")}>
              <Icon name="keys" /> Keys <kbd>?</kbd>
            </Button>
            {me.data !== undefined && (
              <>
                <span className="soft you" title={`Signed in as ${me.data.label}`}>
                  You{workspace?.role !== undefined && `, ${workspace.role.toLowerCase()}`}
                </span>
                <Button look="quiet" onClick={signOut}>
                  Sign out
                </Button>
              </>
            )}
          </div>
        </div>
      </nav>
      {opened !== undefined &&
        me.data !== undefined &&
        (opened === "palette" ? (
          <Palette ws={ws} workspaces={me.data.workspaces} onClose={() => setOpened(undefined)} />
        ) : (
          <Keys onClose={() => setOpened(undefined)} />
        ))}
      <main id="main" ref={main} tabIndex={-1}>
        {signedOut && (
          <Banner
            role="alert"
            tone="bad"
            title="You are signed out."
            actions={
              <a className="button plain" href="/sign-in" target="_blank" rel="noreferrer">
                Sign in
              </a>
            }
          >
            What you typed is still here. Sign in, which opens a page of its own, then come back and save.
          </Banner>
        )}
        {!connected && !signedOut && (
          <p className="offline" role="status">
            Live updates are interrupted; Devpilot is being asked again. What you see may be old.
          </p>
        )}
        {me.data === undefined || workspace === undefined ? (
          <Skeleton rows={6} />
        ) : workspace.state !== "ACTIVE" ? (
          <BeingDeleted name={workspace.displayName} />
        ) : (
          <PlaceProvider value={{ ws, workspace, me: me.data, info: info.data, adminOnly: adminOnly(workspace) }}>
            <Outlet />
          </PlaceProvider>
        )}
      </main>
    </div>
  );
}

/** The keys that `?` lists. Not while typing, but for Ctrl K. */
function useShortcuts(ws: string, navigate: (to: string) => unknown, open: (what: Opened) => void): void {
  const navigateRef = useRef(navigate);
  navigateRef.current = navigate;
  useEffect(() => {
    let leader = 0;
    const onKey = (e: KeyboardEvent) => {
      const target = e.target as HTMLElement;
      const dialog = target.closest("[role=dialog], [role=alertdialog]") !== null;
      if ((e.ctrlKey || e.metaKey) && !e.altKey && !e.shiftKey && e.key.toLowerCase() === "k" && !dialog) {
        e.preventDefault();
        open("palette");
        return;
      }
      if (
        e.ctrlKey ||
        e.metaKey ||
        e.altKey ||
        dialog ||
        target.closest("input, textarea, select, [contenteditable]") !== null
      )
        return;
      const afterG = Date.now() - leader < 1500;
      leader = 0;
      const go = (path: string) => {
        e.preventDefault();
        void navigateRef.current(`/w/${ws}/${path}`);
      };
      if (afterG && e.key === "a") go("apps");
      else if (afterG && e.key === "i") go("settings/integrations");
      else if (afterG && e.key === "y") go("activity");
      else if (e.key === "j" || e.key === "k") {
        if (toRow(e.key === "j" ? 1 : -1)) e.preventDefault();
      } else if (e.key === "g") leader = Date.now();
      else if (e.key === "?") {
        e.preventDefault();
        open("keys");
      } else if (e.key === "n") go("apps/new");
      else if (e.key === "/") {
        const search = document.querySelector<HTMLInputElement>("main [data-search], main [role=combobox]");
        if (search !== null) {
          e.preventDefault();
          search.focus();
          search.select();
        }
      }
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [ws, open]);
}
