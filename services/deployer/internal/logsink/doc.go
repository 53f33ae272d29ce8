// Package logsink writes and reads the logs of deployments: the stream DEVPILOT_LOGS, one subject
// per deployment, one message per 100 ms or 64 KiB of lines (design.md section 4).
//
// Lines are numbered from 1 per deployment, over all its attempts. Each message is published on the
// condition that the one before is still the last of its subject: a worker that was replaced cannot
// add a line, and no line is there twice. A log is bounded in lines and bytes and says so where it
// was cut. Secrets that this process knows of are masked in every line, as a second fence: nothing
// that writes lines is given one.
//
// Depends on pkg/stream.
package logsink
