import { useEffect, useState } from "react";
import { guard } from "../lib/leaving";
import { Button } from "./basics";
import { Dialog } from "./dialog";

/** Present while something on the page is not saved: whoever would leave is asked first. */
export function Unsaved() {
  const [leave, setLeave] = useState<() => void>();
  useEffect(() => {
    const open = guard((go) => setLeave(() => go));
    // Closing the tab or loading another site: the browser asks in its own words.
    const ask = (e: BeforeUnloadEvent) => e.preventDefault();
    addEventListener("beforeunload", ask);
    return () => {
      open();
      removeEventListener("beforeunload", ask);
    };
  }, []);
  return (
    <Dialog alert title="Leave without saving?" open={leave !== undefined} onClose={() => setLeave(undefined)}>
      <p>What you changed on this page is not saved, and would be lost.</p>
      <div className="actions end">
        <Button autoFocus onClick={() => setLeave(undefined)}>
          Stay
        </Button>
        <Button look="danger" onClick={leave}>
          Leave
        </Button>
      </div>
    </Dialog>
  );
}
