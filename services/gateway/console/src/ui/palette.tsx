import { useDeferredValue, useEffect, useState, type KeyboardEvent } from "react";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useNavigate } from "react-router";
import { Autocomplete } from "react-aria-components/Autocomplete";
import { Input } from "react-aria-components/Input";
import { ListBox, ListBoxItem } from "react-aria-components/ListBox";
import { SearchField } from "react-aria-components/SearchField";
import { appsNamedQuery } from "../api/some-apps";
import type { Me } from "../api/client";
import { ofDeployment, places } from "../lib/jump";
import { Dialog } from "./dialog";
import { Text } from "./basics";

/** Jumps to a page, an app, a deployment or a workspace by a few letters of its name. */
export default function Palette({
  ws,
  workspaces,
  onClose,
}: {
  ws: string;
  workspaces: Me["workspaces"];
  onClose: () => void;
}) {
  const [query, setQuery] = useState("");
  const navigate = useNavigate();
  const asked = useDeferredValue(query.trim().slice(0, 200));
  const [name] = ofDeployment(asked);
  const list = useQuery({ ...appsNamedQuery(ws, asked), placeholderData: keepPreviousData });
  const more = useQuery({ ...appsNamedQuery(ws, name), enabled: name !== "", placeholderData: keepPreviousData });
  const apps = new Map([...(list.data ?? []), ...(name === "" ? [] : (more.data ?? []))].map((a) => [a.id, a]));
  const found = places(query, ws, [...apps.values()], workspaces);
  const coming = asked !== query.trim().slice(0, 200) || list.isFetching || (name !== "" && more.isFetching);

  // For what Enter was pressed before its places had come.
  const [entered, setEntered] = useState<string>();
  const first = entered === query && !coming ? found[0]?.to : undefined;
  useEffect(() => {
    if (first === undefined) return;
    onClose();
    void navigate(first);
  }, [first, navigate, onClose]);
  const onEnter = (e: KeyboardEvent<HTMLElement>) => {
    if (e.key !== "Enter" || e.nativeEvent.isComposing || query.trim() === "") return;
    // A place that the arrows or the typing led to is the one that is meant.
    const chosen = e.target instanceof Element ? e.target.getAttribute("aria-activedescendant") : null;
    if (chosen === null || document.getElementById(chosen) === null) setEntered(query);
  };
  return (
    <Dialog title="Jump to" open onClose={onClose}>
      <Autocomplete inputValue={query} onInputChange={setQuery}>
        <SearchField aria-label="Page, app, deployment or workspace" autoFocus className="field" onKeyDown={onEnter}>
          <Input placeholder="An app, or an app and a number: web 12" spellCheck={false} />
        </SearchField>
        {/* What scrolls is reached by keyboard, too. */}
        <div className="options palette" role="group" aria-label="Places to scroll through" tabIndex={0}>
          <ListBox
            aria-label="Places"
            items={found}
            onAction={(key) => {
              const place = found.find((p) => p.id === key);
              if (place === undefined) return;
              // A number names a deployment of every app that is here: those that are meant are still coming.
              if (coming && place.id.startsWith("deployment ")) {
                setEntered(query);
                return;
              }
              onClose();
              void navigate(place.to);
            }}
            renderEmptyState={() => (
              <div className="option-empty" role="status">
                {list.isFetching || more.isFetching ? "Loading…" : "Nothing here has this name."}
              </div>
            )}
          >
            {(p) => (
              <ListBoxItem id={p.id} textValue={p.name} className="option">
                <span className="option-main">
                  <Text>{p.name}</Text>
                </span>
                <span className="option-sub">
                  <Text>{p.kind}</Text>
                </span>
              </ListBoxItem>
            )}
          </ListBox>
        </div>
      </Autocomplete>
    </Dialog>
  );
}
