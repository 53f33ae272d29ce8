import { useQuery } from "@tanstack/react-query";
import { Navigate, Route, Routes as Router, useLocation } from "react-router";
import { meQuery } from "./api/queries";
import { Failed, Skeleton } from "./ui/basics";
import { later } from "./ui/later";
import { Shell } from "./ui/shell";
import { NotFound } from "./pages/missing";

const page = <Skeleton rows={6} />;

// What the visitor did not open is not sent.
const Apps = later(() => import("./pages/apps"), page);
const NewApp = later(() => import("./pages/new-app"), page);
const AppPage = later(() => import("./pages/app"), page);
const DeploymentPage = later(() => import("./pages/deployment"), page);
const Why = later(() => import("./pages/why"), page);
const Activity = later(() => import("./pages/activity"), page);
const Integrations = later(() => import("./pages/integrations"), page);
const Members = later(() => import("./pages/members"), page);
const Workspaces = later(() => import("./pages/workspaces"), page);
const ApiKeys = later(() => import("./pages/api-keys"), page);
const Sessions = later(() => import("./pages/sessions"), page);
const Doctor = later(() => import("./pages/doctor"), page);
const Login = later(() => import("./pages/login"), page);
const Notifications = later(() => import("./pages/notifications"), page);

export function Routes() {
  return (
    <Router>
      <Route path="/" element={<Home />} />
      <Route path="/w/:ws" element={<Shell />}>
        <Route index element={<Navigate to="apps" replace />} />
        <Route path="apps" element={<Apps />} />
        <Route path="apps/new" element={<NewApp />} />
        <Route path="apps/:app" element={<AppPage />} />
        <Route path="apps/:app/deployments/:number" element={<DeploymentPage />} />
        <Route path="why" element={<Why />} />
        <Route path="activity" element={<Activity />} />
        <Route path="settings" element={<Navigate to="integrations" replace />} />
        <Route path="settings/integrations" element={<Integrations />} />
        <Route path="settings/notifications" element={<Notifications />} />
        <Route path="settings/members" element={<Members />} />
        <Route path="settings/workspaces" element={<Workspaces />} />
        <Route path="settings/api-keys" element={<ApiKeys />} />
        <Route path="settings/sessions" element={<Sessions />} />
        <Route path="settings/doctor" element={<Doctor />} />
        <Route path="*" element={<NotFound framed />} />
      </Route>
      <Route path="/login" element={<Login />} />
      <Route path="*" element={<NotFound />} />
    </Router>
  );
}

/** Leads to the workspace used last in this browser, or the first one. */
function Home() {
  const me = useQuery(meQuery);
  const { search } = useLocation();
  if (me.isPending) return <Skeleton />;
  if (me.isError) return <Failed error={me.error} retry={() => void me.refetch()} />;
  const last = localStorage.getItem("devpilot.workspace");
  const open = me.data.workspaces.filter((w) => w.state === "ACTIVE");
  const ws = open.find((w) => w.id === last) ?? open[0];
  if (ws === undefined) return <Workspaces alone />;
  const came = new URLSearchParams(search).has("bitbucket");
  return <Navigate to={came ? `/w/${ws.id}/settings/integrations${search}` : `/w/${ws.id}/apps`} replace />;
}
