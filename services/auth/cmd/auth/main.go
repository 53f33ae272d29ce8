// Command auth runs the auth service.
package main

import (
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/auth"
)

func main() { servicemain.Main(auth.Spec()) }
