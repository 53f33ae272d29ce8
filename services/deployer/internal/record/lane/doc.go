// Package lane decides, per app, what runs, what waits and what was seen (DESIGN.md#a-push-becomes-a-deployment).
//
// The decisions are functions over the lane record: they take a record, change it, and do nothing
// else. [Dispatcher] stores them by compare-and-set, then writes the deployment records that follow
// from them and publishes the wake-up; whatever dies in between, somebody repeats it, because the
// record itself says what is still to be written (its outbox) and the schedule watches every lane
// that has work (Lane.armed).
//
// Depends on the stored records and on pkg/kv's errors; on no JetStream type.
package lane
