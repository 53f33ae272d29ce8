// Command gateway is the gateway service: the public API, sessions, workspaces and the pages.
package main

import (
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/gateway"
)

func main() { servicemain.Main(gateway.Spec()) }
