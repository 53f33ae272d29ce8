module devpilot.io/bitbucket/services/gateway/client/devpilot

go 1.26.0
