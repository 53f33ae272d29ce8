import { useContext, useEffect, useLayoutEffect, useRef, useState, type ReactNode } from "react";
import { UNSAFE_PortalProvider as PortalProvider } from "react-aria/PortalProvider";
import { Button } from "react-aria-components/Button";
import { ComboBox, ComboBoxStateContext } from "react-aria-components/ComboBox";
import { FieldError } from "react-aria-components/FieldError";
import { Group } from "react-aria-components/Group";
import { Input } from "react-aria-components/Input";
import { Label } from "react-aria-components/Label";
import { ListBox, ListBoxItem } from "react-aria-components/ListBox";
import { Popover } from "react-aria-components/Popover";
import { Text } from "react-aria-components/Text";
import { ListLayout, Virtualizer } from "react-aria-components/Virtualizer";
import { Icon } from "./icons";

interface Props<T> {
  label: string;
  /** What stands above tells eyes the label already; readers still get it. */
  labelled?: boolean;
  description?: ReactNode;
  error?: ReactNode;
  placeholder?: string;
  /** What is chosen; its text stands in the field. */
  value: T | undefined;
  text: (item: T) => string;
  onChoose: (item: T) => void;
  /** What is searched for; the caller answers with items. */
  onQuery: (query: string) => void;
  items: readonly T[];
  /** How many there are in all: what is lacking is asked for when the list's end comes into sight. */
  total: number;
  onNeed: () => void;
  id: (item: T) => string;
  row: (item: T) => ReactNode;
  /** What stands in place of rows, such as "Nothing matches". */
  empty: ReactNode;
  /** Lines under the list, such as when it was fetched. */
  footer?: ReactNode;
  loading: boolean;
  disabled?: boolean;
  autoFocus?: boolean;
}

const rowHeight = 44;
const listHeight = 320;

/**
 * A combobox over a list that the caller searches. Only the rows in sight exist, and only the pages
 * that were scrolled to are here, so that ten thousand cost no more than ten.
 */
export function Combobox<T extends object>(p: Props<T>) {
  // What is typed while the list is open; closed, the field shows what is chosen.
  const [typed, setTyped] = useState<string>();
  // React Aria writes the chosen item's text into the field by itself; only a person's keys are a query.
  const person = useRef(false);
  // The list stands in the part of the page that its field is in, so that landmarks hold it too.
  const part = useRef<HTMLElement>(null);
  const chosen = p.value === undefined ? "" : p.text(p.value);
  const ask = (query: string | undefined) => {
    setTyped(query);
    p.onQuery(query ?? "");
  };
  return (
    <ComboBox
      className="field combobox"
      items={p.items}
      selectedKey={p.value === undefined ? null : p.id(p.value)}
      onSelectionChange={(key) => {
        const item = p.items.find((i) => p.id(i) === key);
        if (item !== undefined) p.onChoose(item);
      }}
      inputValue={typed ?? chosen}
      onInputChange={(value) => {
        if (person.current) ask(value);
        person.current = false;
      }}
      onOpenChange={(open) => {
        if (!open) ask(undefined);
      }}
      isDisabled={p.disabled ?? false}
      autoFocus={p.autoFocus ?? false}
      isInvalid={p.error !== undefined}
      allowsEmptyCollection
      // By itself React Aria would open the list whenever the text changes, also when a choice writes it.
      menuTrigger="manual"
    >
      <Label className={p.labelled === true ? "hidden" : undefined}>{p.label}</Label>
      <div
        ref={(own) => {
          part.current = own?.closest<HTMLElement>("[role=dialog], main") ?? null;
        }}
        onInputCapture={() => {
          person.current = true;
        }}
      >
        <Group className="combobox-input">
          <Field placeholder={p.placeholder ?? ""} searching={typed !== undefined && typed !== ""} />
          <Button className="chevron" aria-label={`Show ${p.label.toLowerCase()} list`}>
            <Icon name="open" />
          </Button>
        </Group>
      </div>
      <Text slot="description" className={p.error === undefined && p.description !== undefined ? "soft" : "hidden"}>
        {p.description}
      </Text>
      <FieldError className="field-error">{p.error}</FieldError>
      <PortalProvider getContainer={() => part.current}>
        <Popover className="popover" offset={4}>
          <Virtualizer layout={ListLayout} layoutOptions={{ rowHeight }}>
            <ListBox<T>
              className="options"
              style={{ height: Math.min(listHeight, Math.max(p.items.length, 1) * rowHeight) }}
              aria-busy={p.loading || undefined}
              onScroll={(e) => {
                const el = e.currentTarget;
                if (p.items.length < p.total && el.scrollHeight - el.scrollTop - el.clientHeight < listHeight * 2)
                  p.onNeed();
              }}
              renderEmptyState={() => (
                <div className="option-empty" role="status">
                  {p.loading ? "Loading…" : p.empty}
                </div>
              )}
            >
              {(item) => (
                <ListBoxItem id={p.id(item)} textValue={p.text(item)} className="option">
                  {p.row(item)}
                </ListBoxItem>
              )}
            </ListBox>
          </Virtualizer>
          {p.footer !== undefined && p.footer !== false && <div className="popover-footer">{p.footer}</div>}
        </Popover>
      </PortalProvider>
    </ComboBox>
  );
}

/** The field: a click or a key opens the list, and while one searches the first row is the one that Enter takes. */
function Field({ placeholder, searching }: { placeholder: string; searching: boolean }) {
  const state = useContext(ComboBoxStateContext);
  const open = state?.isOpen ?? false;
  const manager = state?.selectionManager;
  const first = state?.collection.getFirstKey() ?? undefined;
  const lost = manager?.focusedKey === null;
  const previous = useRef(first);
  useEffect(() => {
    const another = previous.current !== first;
    previous.current = first;
    // React Aria forgets the focused row when something is typed, in an effect that comes after this one.
    if (open && searching && first !== undefined && (another || lost))
      queueMicrotask(() => manager?.setFocusedKey(first));
    // The manager is another object at each render.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [open, searching, first, lost]);
  const input = useRef<HTMLInputElement>(null);
  // By itself React Aria hides the page around an open list from screen readers, the field's label and
  // what the Tab key leads to among it. What is marked so, it leaves as it is: here the page, or the dialog.
  useLayoutEffect(() => {
    const around = open
      ? (input.current?.closest<HTMLElement>("[role=dialog]") ?? document.getElementById("root"))
      : null;
    if (around === null) return undefined;
    around.dataset["reactAriaTopLayer"] = "";
    return () => {
      delete around.dataset["reactAriaTopLayer"];
    };
  }, [open]);
  const show = () => state?.open(null, "manual");
  return (
    <Input
      ref={input}
      placeholder={placeholder}
      spellCheck={false}
      onClick={(e) => {
        // What is chosen is typed over; what is being typed is not.
        if (!open) e.currentTarget.select();
        show();
      }}
      onInput={show}
    />
  );
}
