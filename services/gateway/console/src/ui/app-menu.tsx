import { useLayoutEffect, useRef } from "react";
import { useNavigate } from "react-router";
import { UNSAFE_PortalProvider as PortalProvider } from "react-aria/PortalProvider";
import { Menu, MenuItem } from "react-aria-components/Menu";
import { Popover } from "react-aria-components/Popover";
import { setInteractionModality } from "react-aria/useFocusVisible";
import type { App } from "../api/client";
import { httpUrl, isPattern } from "../lib/text";
import { whyPath } from "../lib/why";
import { usePlace } from "../lib/workspace";

/** What can be done with an app of the list without opening it. */
export default function AppMenu({
  app: a,
  button,
  byKey,
  onDeploy,
  onClose,
}: {
  app: App;
  /** What opened the menu: it opens beside it, and the focus goes back to it. */
  button: HTMLElement;
  /** It was opened by a key. */
  byKey: boolean;
  onDeploy: () => void;
  onClose: () => void;
}) {
  const { ws } = usePlace();
  const navigate = useNavigate();
  const anchor = useRef(button);
  // A key that presses a plain button passes for a screen reader's click: the focus would wait for what else moves, and
  // stay at the menu instead of its first item, or nowhere once it is closed.
  useLayoutEffect(() => {
    if (byKey) setInteractionModality("keyboard");
  }, [byKey]);
  const page = `/w/${ws}/apps/${a.id}`;
  const site = httpUrl(a.liveUrl);
  const behind = a.sync?.commit !== undefined && a.sync.state !== "IN_SYNC" ? a.sync.commit : undefined;
  const go = (to: string) => () => void navigate(to);
  return (
    // Within the page's own part, so that landmarks hold it too.
    <PortalProvider getContainer={() => button.closest("main")}>
      <Popover
        triggerRef={anchor}
        isOpen
        aria-label={`More about ${a.id}`}
        onOpenChange={(open) => !open && onClose()}
        placement="bottom end"
        className="popover menu-popover"
      >
        <Menu className="menu" aria-label={`More about ${a.id}`} autoFocus="first" onClose={onClose}>
          {/* Of a pattern it must be asked which branch: the app's page does. */}
          {!isPattern(a.branch) && (
            <MenuItem className="menu-item" onAction={onDeploy}>
              Deploy latest
            </MenuItem>
          )}
          {site !== undefined && (
            <MenuItem className="menu-item" href={site} target="_blank" rel="noreferrer">
              Open the live site
            </MenuItem>
          )}
          {behind !== undefined && (
            <MenuItem className="menu-item" onAction={go(whyPath(ws, "commit", behind, a.id))}>
              Why is it not live?
            </MenuItem>
          )}
          <MenuItem className="menu-item" onAction={go(`${page}?tab=deployments`)}>
            Deployments
          </MenuItem>
          <MenuItem className="menu-item" onAction={go(`${page}?tab=deliveries`)}>
            Deliveries
          </MenuItem>
          <MenuItem className="menu-item" onAction={go(`${page}?tab=settings`)}>
            Settings
          </MenuItem>
        </Menu>
      </Popover>
    </PortalProvider>
  );
}
