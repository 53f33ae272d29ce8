module devpilot.io/bitbucket/services/cli

go 1.26.0

require (
	devpilot.io/bitbucket/services/gateway/client/devpilot v0.0.0
	github.com/goccy/go-yaml v1.19.2
	github.com/spf13/cobra v1.10.2
	golang.org/x/term v0.47.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace devpilot.io/bitbucket/services/gateway/client/devpilot => ../gateway/client/devpilot
