package mirror

import "flag"

// deep has every kind of damage and of hostility go through whole fetches and deployments, each of
// which starts a score of processes:
//
//	go test ./services/deployer/internal/engine/git/mirror -race -mirror.deep -timeout 20m
//
// Without it one of each sort does; the others are put to the code that decides about them where
// that says as much.
var deep = flag.Bool("mirror.deep", false, "send every kind of damage and hostility through whole fetches; takes minutes")
