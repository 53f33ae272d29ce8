// Parts of the console that are sent when they are needed. One that does not come, or fails, takes nothing else
// with it: it says so where it would stand, and is asked for anew when it is needed again.
import { Component, lazy, Suspense, useState, type ComponentType, type ReactNode } from "react";
import { useLocation } from "react-router";
import { Banner, Button } from "./basics";

/** Why a part of the console is not there: it could not be fetched. */
export class NotLoaded extends Error {}

interface Props {
  /** Where the visitor is: elsewhere what failed is tried again. */
  at: string;
  /** Has what failed asked for anew. */
  renew: () => void;
  children: ReactNode;
}

/** Keeps what fails in it to itself. */
class Boundary extends Component<Props, { error?: unknown; at: string; tries: number }> {
  override state = { error: undefined as unknown, at: this.props.at, tries: 0 };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  static getDerivedStateFromProps(props: Props, state: { at: string }) {
    return props.at === state.at ? null : { at: props.at, error: undefined, tries: 0 };
  }

  override componentDidCatch() {
    this.props.renew();
  }

  override render() {
    const { error, tries } = this.state;
    if (error === undefined) return this.props.children;
    const absent = error instanceof NotLoaded;
    return (
      <Banner
        role="alert"
        tone="bad"
        title={absent ? "This part of the page did not come." : "This part of the page cannot be shown."}
        actions={
          <Button
            onClick={() => {
              // After an update the page asks for files that are gone: only the new page knows their names.
              if (!absent || tries > 0) window.location.reload();
              else this.setState({ error: undefined, tries: tries + 1 });
            }}
          >
            {absent && tries === 0 ? "Load it again" : "Reload the page"}
          </Button>
        }
      >
        {absent
          ? "Devpilot does not answer, or was updated since the page was opened."
          : `It is a mistake in the console; tell the operator: ${error instanceof Error ? error.message : String(error)}.`}
      </Banner>
    );
  }
}

/** A component that is loaded when it is first shown; `waiting` stands in its place until then. */
export function later<P extends object>(
  load: () => Promise<{ default: ComponentType<P> }>,
  waiting: ReactNode = null,
): ComponentType<P> {
  const begin = () =>
    lazy(() =>
      load().catch((e: unknown) => {
        throw new NotLoaded(String(e));
      }),
    );
  let part = begin();
  return function Later(props: P) {
    const { pathname } = useLocation();
    const [Part, setPart] = useState(() => part);
    return (
      <Boundary
        at={pathname}
        renew={() => {
          part = begin();
          setPart(() => part);
        }}
      >
        <Suspense fallback={waiting}>
          <Part {...props} />
        </Suspense>
      </Boundary>
    );
  };
}
