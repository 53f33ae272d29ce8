# Every command a developer needs. `make help` prints them from the ## comments.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ROOT := $(CURDIR)
TOOLS := $(ROOT)/bin/tools
export PATH := $(TOOLS):$(PATH)

# Tool versions are pinned here and nowhere else; tools live outside the workspace so that they
# cannot raise the services' dependencies.
BUF := github.com/bufbuild/buf/cmd/buf@v1.75.0
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
PROTOC_GEN_GATEWAY := github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway@v2.33.0
PROTOC_GEN_OPENAPI := github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv3@v2.33.0
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOTESTSUM := gotest.tools/gotestsum@v1.13.0

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

# A stamp per tool and version: a changed pin installs the new one.
define tool
$(TOOLS)/.$(subst /,_,$(1)):
	@mkdir -p $(TOOLS) && echo "installing $(1)" && GOBIN=$(TOOLS) GOWORK=off GOFLAGS= go install $(1) && touch $$@
endef
$(foreach t,$(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) $(PROTOC_GEN_GATEWAY) $(PROTOC_GEN_OPENAPI) $(GOLANGCI) $(GOTESTSUM),$(eval $(call tool,$(t))))
stamp = $(TOOLS)/.$(subst /,_,$(1))

.PHONY: generate
generate: $(call stamp,$(BUF)) $(call stamp,$(PROTOC_GEN_GO)) $(call stamp,$(PROTOC_GEN_GO_GRPC)) $(call stamp,$(PROTOC_GEN_GATEWAY)) ## Generate Go from the protos
	buf lint
	rm -rf proto/gen && buf generate --template proto/buf.gen.yaml
