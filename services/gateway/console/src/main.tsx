import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { unstable_HistoryRouter as HistoryRouter } from "react-router";
import { asApiError } from "./api/client";
import { history } from "./lib/leaving";
import { Routes } from "./routes";
import "./styles.css";

const client = new QueryClient({
  defaultOptions: {
    queries: {
      // Change events say when something is old; without them nothing is asked again.
      staleTime: 60_000,
      // Devpilot may be on this very machine: what the browser thinks of the network says nothing of it.
      networkMode: "always",
      refetchOnWindowFocus: false,
      retry: (count, error) => {
        const e = asApiError(error);
        return (
          count < (e.reason === "TIMEOUT" ? 1 : 2) &&
          (e.status === 0 || e.status === 502 || e.status === 503 || e.status === 504) &&
          e.reason !== "BITBUCKET_UNAVAILABLE"
        );
      },
      retryDelay: (count) => 500 * 2 ** count,
    },
    mutations: { retry: false, networkMode: "always" },
  },
});

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <HistoryRouter history={history}>
        <Routes />
      </HistoryRouter>
    </QueryClientProvider>
  </StrictMode>,
);
