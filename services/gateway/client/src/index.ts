/**
 * Speaks with Devpilot's API: every call of /openapi.json with its types, refusals as errors with their
 * reason, repeats where they are harmless and can help, and streams that go on after an interruption.
 */
export { connect, pages, requestId, take, type Answer, type Devpilot, type Options } from "./client.js";
export { DevpilotError, isReason, NoAnswerError, type Problem, type Reason } from "./problem.js";
export { followEvents, followLog, type EventsOf, type LogOf } from "./streams.js";
export type { components, operations, paths } from "./schema.js";

import type { components } from "./schema.js";
/** What is sent and answered, by name, such as Schemas["App"]. */
export type Schemas = components["schemas"];
