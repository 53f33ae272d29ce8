import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { unstable_HistoryRouter as HistoryRouter } from "react-router";
import { history } from "./lib/leaving";
import { Routes } from "./routes";
import { NotLoaded } from "./ui/later";
import "./styles.css";

const client = new QueryClient({
  defaultOptions: {
    queries: {
      // Change events say when something is old; without them nothing is asked again.
      staleTime: 60_000,
      // Devpilot may be on this very machine: what the browser thinks of the network says nothing of it.
      networkMode: "always",
      refetchOnWindowFocus: false,
      retry: false, // the client did
    },
    mutations: { retry: false, networkMode: "always" },
  },
});

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root, {
  // A part that did not come says so where it would stand; who leaves a page while it loads need not hear of it.
  onCaughtError: (error, { componentStack }) => {
    if (!(error instanceof NotLoaded)) console.error(error, componentStack);
  },
}).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <HistoryRouter history={history}>
        <Routes />
      </HistoryRouter>
    </QueryClientProvider>
  </StrictMode>,
);
