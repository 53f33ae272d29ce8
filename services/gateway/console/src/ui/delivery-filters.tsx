import { results } from "../lib/deliveries";
import { SearchText } from "./search-text";

/** Which deliveries are listed; the address has it, so that it can be sent to somebody. */
export function DeliveryFilters({
  params,
  set,
}: {
  params: URLSearchParams;
  set: (name: string, value: string) => void;
}) {
  const value = (name: string) => params.get(name) ?? "";
  return (
    <div className="filters fields" role="search" aria-label="Deliveries">
      <SearchText shown label="Branch" value={value("branch")} onChange={(v) => set("branch", v)} />
      <SearchText shown label="Commit" value={value("commit")} onChange={(v) => set("commit", v)} />
      <label>
        Outcome{" "}
        <select value={value("outcome")} onChange={(e) => set("outcome", e.target.value)}>
          <option value="">All</option>
          {results.map(([result, word]) => (
            <option key={result} value={result}>
              {word}
            </option>
          ))}
        </select>
      </label>
      <label>
        From <input type="date" value={value("from")} onChange={(e) => set("from", e.target.value)} />
      </label>
      <label>
        To <input type="date" value={value("to")} onChange={(e) => set("to", e.target.value)} />
      </label>
    </div>
  );
}
