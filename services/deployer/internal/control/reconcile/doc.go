// Package reconcile finds pushes whose delivery never came (DESIGN.md#nothing-missed):
// it compares every watched branch and tag with what the app's lane saw of it last, never with what
// is live, and says "delivery missing" only after a while. Where Bitbucket cannot reach us it is how
// auto-deploy works.
//
// A push is missed when a branch or tag that is watched points to another commit than was seen last,
// or is new. What was there when watching began is the baseline: auto-deploy was switched on, or
// other branches or tags are watched. A single branch's is its head at that moment; of what matches a
// pattern it is what the first poll finds, which follows at once. A branch or tag that went and came
// back to the same commit between two polls is not noticed, and one that is deleted deploys nothing.
//
// Where a branch is behind what is live, it also asks by how many commits, once for each pair of commits.
//
// It asks git for heads over a kept connection, one question per repository however many apps, branches and tags there
// are; its budget at Bitbucket is 60 times that of the REST API (BITBUCKET.md#budgets). All deployers run it; who moves a repository's
// next poll on by compare-and-set has the turn.
//
// Depends on internal/record/lane and the interfaces below.
package reconcile
