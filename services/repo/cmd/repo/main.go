// Command repo is the repo service: it lists Bitbucket's repositories and branches.
package main

import (
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/repo"
)

func main() { servicemain.Main(repo.Spec()) }
