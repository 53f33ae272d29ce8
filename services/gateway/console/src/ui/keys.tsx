import { Dialog } from "./dialog";
import { Button } from "./basics";

/** The keys that work on every page. */
export const shortcuts: readonly (readonly [string[], string])[] = [
  [["Ctrl K"], "Jump to a page, an app or a deployment (⌘ K on a Mac)"],
  [["/"], "Search on this page"],
  [["n"], "New app"],
  [["g", "a"], "Apps"],
  [["g", "y"], "Activity"],
  [["g", "i"], "Integrations"],
  [["j k"], "Walk through a list, as the arrows do"],
  [["Home End"], "The first and the last of a list"],
  [["Enter"], "In the log’s search: the next match; with Shift the one before"],
  [["Esc"], "Close, and go back to where you were"],
  [["?"], "This list"],
];

export default function Keys({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" open onClose={onClose}>
      <dl className="keys">
        {shortcuts.map(([keys, what]) => (
          <div key={what}>
            <dt>
              {keys.map((k, i) => (
                <span key={k}>
                  {i > 0 && <span className="soft"> then </span>}
                  <kbd>{k}</kbd>
                </span>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <div className="actions">
        <Button look="primary" onClick={onClose}>
          Close
        </Button>
      </div>
    </Dialog>
  );
}
