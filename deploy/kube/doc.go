// Package kube applies the Helm chart to a real kube-apiserver with etcd: every object must be accepted, pods must be
// admitted where Pod Security, quotas and limits hold, and an upgrade from the objects of the last release must change
// nothing that cannot change. No controller and no kubelet runs, so that pods are made as their controllers would.
//
// Both servers are built from their Go modules, by the tool lines of go.mod. The definitions of custom resources are
// those that the modules of crds/go.mod publish. Both modules stand outside of the workspace and apart from deploy/go.mod:
// what these servers need must raise nothing else. `make test-kube` runs it; testdata/released is made by `make released`.
package kube
