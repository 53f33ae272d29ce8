import { useEffect, useRef, useState, type ReactNode } from "react";
import { guard } from "../lib/leaving";
import { holdUnsaved } from "../lib/signed-out";
import { Button } from "./basics";
import { Dialog } from "./dialog";

/**
 * Present while something on the page is not saved: whoever would leave is asked first. `asked` has the same
 * question asked by what it stands in, such as a dialog that would close.
 */
export function Unsaved({ asked }: { asked?: { leave: () => void; stay: () => void } | undefined }) {
  const [leave, setLeave] = useState<() => void>();
  useEffect(() => {
    const open = guard((go) => setLeave(() => go));
    const release = holdUnsaved();
    // Closing the tab or loading another site: the browser asks in its own words.
    const ask = (e: BeforeUnloadEvent) => e.preventDefault();
    addEventListener("beforeunload", ask);
    return () => {
      open();
      release();
      removeEventListener("beforeunload", ask);
    };
  }, []);
  const stay = () => {
    setLeave(undefined);
    asked?.stay();
  };
  return (
    <Dialog alert title="Leave without saving?" open={leave !== undefined || asked !== undefined} onClose={stay}>
      <p>What you changed here is not saved, and would be lost.</p>
      <div className="actions end">
        <Button autoFocus onClick={stay}>
          Stay
        </Button>
        <Button look="danger" onClick={leave ?? asked?.leave}>
          Leave
        </Button>
      </div>
    </Dialog>
  );
}

/** A form that is not left unasked once something was typed into it. */
export function Typed({ children }: { children: ReactNode }) {
  const [typed, setTyped] = useState(false);
  return (
    <div onInputCapture={() => setTyped(true)}>
      {children}
      {typed && <Unsaved />}
    </div>
  );
}

/** A dialog with a form: once something was typed into it, a click beside it and Escape ask before it closes. */
export function FormDialog({ title, onClose, children }: { title: string; onClose: () => void; children: ReactNode }) {
  const [typed, setTyped] = useState(false);
  const [closing, setClosing] = useState(false);
  const last = useRef<HTMLElement>(null);
  const stay = () => {
    setClosing(false);
    requestAnimationFrame(() => last.current?.focus()); // a click beside the dialog took it away
  };
  return (
    <Dialog title={title} open onClose={() => (typed ? setClosing(true) : onClose())}>
      <div
        onInputCapture={(e) => {
          last.current = e.target as HTMLElement;
          setTyped(true);
        }}
      >
        {children}
      </div>
      {typed && <Unsaved asked={closing ? { leave: onClose, stay } : undefined} />}
    </Dialog>
  );
}
