// Package inbox is the durable point of ingest: one write per moment, for all deliveries that wait.
//
// A [Writer], one per process, packs what is waiting (64 deliveries or 512 KiB at most) into one
// message of the stream DEVPILOT_INBOX and tells every waiting request at once whether it is stored.
// A delivery that comes alone is written at once. Where several came with the last write, the next one
// waits up to 5 ms for as many: those that were answered are usually followed by others.
// When the store has trouble it repeats the same message under the same id until each delivery's
// timeout ends; only the writer decides that a delivery was not stored, and never while a write of
// it is under way. The connection must not buffer (stream.Connect sees to that), so that nothing
// appears later that was refused. One case cannot be told apart by anybody: a message that was
// stored and whose acknowledgement was lost. A delivery refused for that may still be routed; the
// push it tells of did happen.
//
// Bodies are kept byte for byte, compressed where that helps ([Pack], [Body]).
//
// Depends on pkg/stream and the stored protos.
package inbox
