// Package status tells Bitbucket how deployments stand, as build statuses of the commits
// (BITBUCKET.md#build-statuses): in progress while a deployment works on its commit, then its end.
//
// It is best effort, and never in a deployment's way: the deployer's change events make it read
// a deployment's record, and whatever goes wrong is at most a line in the log.
//
// # What is sent
//
//	deployment                          status
//	PROCESSING, its source checked out  INPROGRESS
//	COMPLETED                           SUCCESSFUL
//	FAILED                              FAILED
//	CANCELLED, SUPERSEDED               STOPPED
//
// Nothing is sent for a deployment that never started (a burst of pushes makes many), for one that
// was superseded by another one of the same commit (which has the same status to itself), and in
// progress only once the commit is fixed, so that no status of a commit that was not deployed after
// all stays behind. A deployment costs at most two calls, a quick one only one, out of the part of
// the budget that is not kept for people.
//
// The key is one per app and connection: a commit that is deployed again shows the newest of its
// deployments. Only the account that made a status, or an admin, may overwrite it;
// hence a new connection has a key of its own. A deployment that began under one connection and ends
// under another leaves its INPROGRESS there, and its end stands beside it: nobody else may remove it.
//
// # In which order
//
// Bitbucket has no order between calls; the last one stands. Within a process one goroutine at a
// time works on a deployment. Across processes whoever has sent a status reads the record again
// afterwards, and sends once more when it has moved on: whichever call came last, what stands in the
// end is the end.
//
// # When Bitbucket does not take it
//
// Temporary trouble holds the workspace's statuses back, a few seconds at first, minutes later. The
// end of a deployment is tried again for 15 minutes: its event stays unacknowledged and comes
// again after a while, in whichever process; in progress is not, as it is soon outdated.
//
// A refusal holds back for 15 minutes what it is about: a 403 the one status, which another account may
// have made, a 401 the one repository. Only when a second one is refused as well, without a success
// since, is it the repository, or the connection. A scope that is missing, or a connection that must be
// made again, is about all of the connection's. A status that Bitbucket does not know the commit of is
// dropped.
//
// Depends on pkg/bitbucket, pkg/kv, pkg/stream and internal/record/lane.
package status
