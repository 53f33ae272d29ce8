import { useState } from "react";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate } from "react-router";
import { Autocomplete } from "react-aria-components/Autocomplete";
import { Input } from "react-aria-components/Input";
import { ListBox, ListBoxItem } from "react-aria-components/ListBox";
import { SearchField } from "react-aria-components/SearchField";
import { appsQuery } from "../api/apps";
import type { Me } from "../api/client";
import { places } from "../lib/jump";
import { Dialog } from "./dialog";
import { Text } from "./basics";

const screenful = 20;

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
  const list = useInfiniteQuery(appsQuery(ws));
  const apps = list.data?.pages.flatMap((p) => p.apps) ?? [];
  const found = places(query, ws, apps, workspaces);
  // An app on a page that is not here is found too: pages are asked for until a screenful has the name.
  if (query !== "" && found.length < screenful && list.hasNextPage && !list.isFetchingNextPage)
    void list.fetchNextPage();
  return (
    <Dialog title="Jump to" open onClose={onClose}>
      <Autocomplete inputValue={query} onInputChange={setQuery}>
        <SearchField aria-label="Page, app, deployment or workspace" autoFocus className="field">
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
              onClose();
              void navigate(place.to);
            }}
            renderEmptyState={() => (
              <div className="option-empty" role="status">
                {list.isFetching ? "Loading…" : "Nothing here has this name."}
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
