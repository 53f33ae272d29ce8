// Package deploylog writes and reads the logs of deployments: the stream DEVPILOT_LOGS, one subject
// per deployment, one message per 100 ms or 64 KiB of lines (DESIGN.md#state).
//
// Lines are numbered from 1 per deployment, over all its attempts. Each message is published on the
// condition that the one before is still the last of its subject: a worker that was replaced cannot
// add a line, and no line is there twice. A log is bounded in lines and bytes and says so where it
// was cut. Since line numbers rise, a reader of the end finds where to begin by bisection.
//
// Secrets are masked in every line. Those of this process (tokens) are a second fence: nothing that
// writes lines is given one. Those of an app (its secret variables) are given to its hooks, which
// may print them in many spellings; they are hidden in that deployment's log only.
//
// Depends on pkg/stream.
package deploylog
