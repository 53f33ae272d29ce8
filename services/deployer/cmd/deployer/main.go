// Command deployer is the deployer service: it owns apps and deploys them.
package main

import (
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/deployer"
)

func main() { servicemain.Main(deployer.Spec()) }
