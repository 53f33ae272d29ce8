// Package backup is `devpilot backup` and `devpilot restore`: all that an installation keeps in NATS goes into a
// directory while it runs, and from there into a NATS that has nothing of it.
//
// Streams and buckets are read as any consumer reads them, one after the other, and written as archives that
// NATS itself restores, with every sequence as it was: revisions of records, etags and positions stay true. NATS's
// own snapshot is not used, because of a bucket that is written meanwhile it leaves out each record whose newest value came after
// the snapshot began (TestSave_bucketUnderWrites).
//
// The order in which they are read (see streams) is what makes the whole of it fit without stopping anybody: what
// tells of something else is read before it, so that the backup is a state in which a crash might have left the stores, from which
// the product carries on by itself. What a restore has to settle beyond that is in deployer.SettleRestored.
//
//	command.go, settings.go   what is typed
//	source.go                 the NATS that is meant: one that is named, that of the running program, or its files
//	streams.go                which streams there are, and their order
//	save.go, read.go          a backup
//	manifest.go, archive.go   what it is made of
//	restore.go, upload.go     a restore
//
// Depends on pkg/stream, pkg/kv and pkg/installation, on the deployer for what its records mean, and on NATS's archive format.
package backup
