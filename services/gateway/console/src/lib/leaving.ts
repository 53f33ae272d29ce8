// The browser's history, which can be asked to wait: somebody who would leave what is not saved is
// asked first. React Router offers that only with its data routers, which are 14 KB more on first load.
import { NavigationType, UNSAFE_createBrowserHistory } from "react-router";

type BrowserHistory = ReturnType<typeof UNSAFE_createBrowserHistory>;
type To = Parameters<BrowserHistory["push"]>[0];

/** Asks whether to leave; `leave` does it. */
export type Guard = (leave: () => void) => void;

/** What a navigation carries that is asked nothing: what was being changed is gone anyway. */
export const leaves = { leaves: true };

/** Wraps a history: while there is a guard, no way leads to another page past it. */
export function guarded(base: BrowserHistory): { history: BrowserHistory; guard: (ask: Guard) => () => void } {
  const guards = new Set<Guard>();
  const page = (href: string) => href.split("#", 1)[0];
  const now = () => base.createHref(base.location);
  let here = now();
  let expected = false; // the next step back or forward is our own

  const step = (way: "push" | "replace") => (to: To, state?: unknown) => {
    const go = () => {
      base[way](to, state);
      here = now();
    };
    const ask = Array.from(guards).at(-1);
    const other = page(new URL(base.createHref(to), location.href).href) !== page(location.href);
    const free = (state as Partial<typeof leaves> | null | undefined)?.leaves === true;
    if (ask !== undefined && other && !free) ask(go);
    else go();
  };
  const listen: BrowserHistory["listen"] = (tell) =>
    base.listen((update) => {
      if (expected) {
        expected = false;
        return;
      }
      const { action, delta } = update; // no delta where somebody else wrote the history
      const ask = Array.from(guards).at(-1);
      if (action === NavigationType.Pop && delta !== null && ask !== undefined && page(now()) !== page(here)) {
        // The browser has moved already: back to where the question is asked.
        expected = true;
        base.go(-delta);
        ask(() => {
          guards.clear();
          base.go(delta);
        });
        return;
      }
      here = now();
      tell(update);
    });
  const history = Object.create(base, {
    push: { value: step("push") },
    replace: { value: step("replace") },
    listen: { value: listen },
  }) as BrowserHistory;
  return {
    history,
    guard: (ask) => {
      guards.add(ask);
      return () => guards.delete(ask);
    },
  };
}

export const { history, guard } = guarded(UNSAFE_createBrowserHistory({ window, v5Compat: true }));
