# Every command a developer needs. `make help` prints them from the ## comments.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ROOT := $(CURDIR)
TOOLS := $(ROOT)/bin/tools
export PATH := $(TOOLS):$(PATH)
# Everything but tests with the race detector is built as a release is: without C, and the same in any directory,
# so that all of it shares what the build cache has.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(filter-out -trimpath,$(GOFLAGS)) -trimpath)

# Tool versions are pinned here and nowhere else; tools live outside the workspace so that they
# cannot raise the services' dependencies.
BUF := github.com/bufbuild/buf/cmd/buf@v1.75.0
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
PROTOC_GEN_GATEWAY := github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway@v2.33.0
PROTOC_GEN_OPENAPI := github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv3@v2.33.0
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOTESTSUM := gotest.tools/gotestsum@v1.13.0
OAPI_CODEGEN := github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2
OGEN := github.com/ogen-go/ogen/cmd/ogen@v1.25.0
OASDIFF := github.com/oasdiff/oasdiff@v1.25.0
CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# A stamp per tool and version: a changed pin installs the new one.
define tool
$(TOOLS)/.$(subst /,_,$(1)):
	@mkdir -p $(TOOLS) && echo "installing $(1)" && GOBIN=$(TOOLS) GOWORK=off GOFLAGS= go install $(1) && touch $$@
endef
$(foreach t,$(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) $(PROTOC_GEN_GATEWAY) $(PROTOC_GEN_OPENAPI) $(GOLANGCI) $(GOTESTSUM) $(OAPI_CODEGEN) $(OGEN) $(OASDIFF) $(CYCLONEDX),$(eval $(call tool,$(t))))
stamp = $(TOOLS)/.$(subst /,_,$(1))


# The list of modules comes from the workspace, never from a list kept by hand.
MODULES = $(shell go list -m -f '{{.Dir}}')
PACKAGES = $(addsuffix /...,$(MODULES))
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X devpilot.io/bitbucket/pkg/servicemain.Version=$(VERSION)

.PHONY: needs
needs: ## Install what building and testing need (see .ci/needs), saying so
	@.ci/needs

CONSOLE := services/gateway/console
CONSOLE_SITE := services/gateway/internal/console/dist/site/index.html
NODE := $(shell node -e 'process.stdout.write(+process.versions.node.split(".")[0]>=20?"yes":"")' 2>/dev/null)

# The lock decides what is installed; a changed one installs again.
$(CONSOLE)/node_modules/.stamp: $(CONSOLE)/package-lock.json
	cd $(CONSOLE) && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.stamp

CLIENT := services/gateway/client

$(CLIENT)/node_modules/.stamp: $(CLIENT)/package-lock.json
	cd $(CLIENT) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.stamp

$(CONSOLE_SITE): $(CONSOLE)/node_modules/.stamp $(CONSOLE)/index.html $(CONSOLE)/vite.config.ts $(shell find $(CONSOLE)/src $(CLIENT)/src $(CLIENT)/scripts -type f -not -name schema.ts -not -name facts.ts) services/gateway/internal/openapi/openapi.json
	cd $(CONSOLE) && npm run --silent build

.PHONY: console
ifeq ($(NODE),yes)
console: $(CONSOLE_SITE) ## Build the web console (needs Node.js 20 or newer)
else
console:
	@echo "The web console is left out: it needs Node.js 20 or newer with npm, which this machine has not. Everything else works; sign in at /."
endif

.PHONY: test-console
test-console: test-console-unit test-browser ## Both of the console's layers

.PHONY: console-needs
console-needs:
	@.ci/needs git node npm
	@node -e 'process.exit(+process.versions.node.split(".")[0]>=20?0:1)' || { echo "The console's tests need Node.js 20 or newer with npm; this machine has $$(node --version). Install it and run this again." >&2; exit 1; }

.PHONY: test-console-unit
test-console-unit: console-needs ## Check the console's types, run its unit tests and those of the TypeScript client
	@$(MAKE) --no-print-directory console
	cd $(CONSOLE) && npm run --silent typecheck && npm test --silent
	@$(MAKE) --no-print-directory $(CLIENT)/node_modules/.stamp
	cd $(CLIENT) && npm test --silent

.PHONY: test-browser
test-browser: console-needs ## Run the console's tests in a real Chromium
	@.ci/needs chromium redis-server
	@$(MAKE) --no-print-directory console $(CLIENT)/node_modules/.stamp
	@mkdir -p bin && go build -o bin/console-test ./services/allinone/cmd/devpilot
	cd $(CONSOLE) && DEVPILOT_PROGRAM=$(ROOT)/bin/console-test npm run --silent e2e

.PHONY: tour
tour: console-needs ## Take the pictures of README's tour anew, by the browser test that goes it
	@.ci/needs chromium redis-server
	@$(MAKE) --no-print-directory console
	@mkdir -p bin $(CONSOLE)/tour && rm -f $(CONSOLE)/tour/*.png && go build -o bin/console-test ./services/allinone/cmd/devpilot
	cd $(CONSOLE) && CONSOLE_TOUR=1 DEVPILOT_PROGRAM=$(ROOT)/bin/console-test npm run --silent e2e -- tour

.PHONY: build
build: console ## Build all programs into bin/
	@.ci/needs git
	@mkdir -p bin
	go build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o bin/ $(foreach b,auth repo webhook deployer gateway,./services/$(b)/cmd/$(b)) ./services/allinone/cmd/devpilot ./services/allinone/cmd/bitbucket-emulator

.PHONY: release
release: console-needs $(call stamp,$(CYCLONEDX)) ## Build what is published, from the tag that is checked out, into dist/
	@.ci/needs git mmdebstrap debian-keys
	@.ci/release dist

.PHONY: snapshot
snapshot: console-needs $(call stamp,$(CYCLONEDX)) ## Build the same from what is checked out, into dist/, to try it
	@.ci/needs git mmdebstrap debian-keys
	@.ci/release dist --snapshot

# Its tools have a module of their own, outside of the workspace: they must not raise the services' dependencies.
.PHONY: test-deploy
test-deploy: console-needs $(call stamp,$(CYCLONEDX)) $(call stamp,$(GOLANGCI)) ## Test what is installed: the release's programs and images, the unit files, compose.yaml, the chart
	@.ci/needs git gcc bwrap slirp4netns ip systemd-analyze mmdebstrap debian-keys
	cd deploy && GOWORK=off go mod tidy -diff && GOWORK=off golangci-lint run --config ../.golangci.yml ./... && GOWORK=off go test -count 1 -vet=off -timeout 20m ./...

# dex has a module of its own for the same reason.
.PHONY: test-dex
test-dex: $(call stamp,$(GOLANGCI)) ## Test signing in with dex, an identity provider as others run it
	@.ci/needs git gcc libc-headers
	@mkdir -p bin && go build -o bin/dex-test ./services/allinone/cmd/devpilot
	cd services/gateway/dex && GOWORK=off go mod tidy -diff && GOWORK=off golangci-lint run --config ../../../.golangci.yml ./... && DEVPILOT_PROGRAM=$(ROOT)/bin/dex-test GOWORK=off go test -count 1 -vet=off -timeout 10m ./...

# So have kube-apiserver and etcd, which take minutes to build where nothing is cached. A server that is not told its version has none.
KUBE := cd deploy/kube && GOWORK=off
KUBE_LDFLAGS = -s -w -X k8s.io/component-base/version.gitVersion=$(shell $(KUBE) go list -m -f '{{.Version}}' k8s.io/kubernetes)

.PHONY: test-kube
test-kube: $(call stamp,$(GOLANGCI)) ## Apply the chart to a real kube-apiserver with etcd, and print what it makes of it
	@.ci/needs git
	cd deploy/kube/crds && GOWORK=off go mod tidy -diff
	$(KUBE) go mod tidy -diff
	$(KUBE) go build -ldflags '$(KUBE_LDFLAGS)' -o $(ROOT)/bin/kube/ k8s.io/kubernetes/cmd/kube-apiserver go.etcd.io/etcd/server/v3
	$(KUBE) golangci-lint run --config ../../.golangci.yml ./...
	$(KUBE) KUBE_APISERVER=$(ROOT)/bin/kube/kube-apiserver ETCD=$(ROOT)/bin/kube/server go test -count 1 -vet=off -timeout 15m -v ./...

.PHONY: run
run: build hook-needs ## Start the whole product on http://127.0.0.1:8080 (with a Bitbucket emulator unless credentials are set)
	@exec bin/devpilot $(if $(DEVPILOT_BITBUCKET_CLIENT_ID),,--emulator) $(ARGS)

.PHONY: hook-needs
hook-needs:
	@.ci/needs bwrap slirp4netns ip || echo "Deployment hooks will not run without bubblewrap; everything else does."

.PHONY: generate
generate: $(call stamp,$(OAPI_CODEGEN)) $(call stamp,$(BUF)) $(call stamp,$(PROTOC_GEN_GO)) $(call stamp,$(PROTOC_GEN_GO_GRPC)) $(call stamp,$(PROTOC_GEN_GATEWAY)) $(call stamp,$(PROTOC_GEN_OPENAPI)) ## Generate code from the protos, and the documents made from code
	buf lint
	buf generate --template proto/buf.gen.yaml
	go run ./services/gateway/internal/openapi/gen
	services/gateway/client/devpilot/generate.sh
	go run ./services/cli/cmd/devpilot reference > services/cli/.REFERENCE && mv services/cli/.REFERENCE services/cli/REFERENCE.md
	cp services/deployer/internal/record/codeconfig/devpilot.schema.json services/gateway/internal/openapi/
	go run ./services/allinone/cmd/devpilot nats-permissions > deploy/nats/permissions.conf
	go run ./services/allinone/internal/reference/gen
	cd deploy && GOWORK=off go run ./cmd/chart-settings && GOWORK=off go run ./cmd/dashboards

.PHONY: released
released: $(call stamp,$(BUF)) ## At a release: keep the protos, the API and the chart's objects as they are now, to compare later ones with, and the commit to upgrade from
	buf build --exclude-source-info -o proto/released.binpb
	cp services/gateway/internal/openapi/openapi.json services/gateway/internal/openapi/released.json
	git rev-parse HEAD > .ci/released
	cd deploy/kube && GOWORK=off go run ./cmd/released

.PHONY: fmt
fmt: $(call stamp,$(GOLANGCI)) $(call stamp,$(BUF)) ## Format the code
	buf format -w --path proto/devpilot
	golangci-lint fmt $(addsuffix /...,$(patsubst $(ROOT)/%,./%,$(MODULES)))
ifeq ($(NODE),yes)
	@$(MAKE) --no-print-directory $(CONSOLE)/node_modules/.stamp
	cd $(CONSOLE) && npm run --silent format && npm run --silent format-client
endif

.PHONY: lint
lint: lint-go lint-console ## Run the linters

.PHONY: lint-go
lint-go: $(call stamp,$(GOLANGCI)) ## Of the linters, Go's
	golangci-lint run $(addsuffix /...,$(patsubst $(ROOT)/%,./%,$(MODULES)))

.PHONY: lint-console
lint-console: console-needs ## Of the linters, the console's: formatting and rules of its TypeScript
	@$(MAKE) --no-print-directory $(CONSOLE)/node_modules/.stamp
	cd $(CONSOLE) && npm run --silent lint && npm run --silent lint-client

.PHONY: check
check: $(call stamp,$(BUF)) $(call stamp,$(PROTOC_GEN_GO)) $(call stamp,$(PROTOC_GEN_GO_GRPC)) $(call stamp,$(PROTOC_GEN_GATEWAY)) $(call stamp,$(PROTOC_GEN_OPENAPI)) $(call stamp,$(OAPI_CODEGEN)) $(call stamp,$(OGEN)) $(call stamp,$(OASDIFF)) ## Prove that generated code, go.mod files, layers and formatting are up to date
	.ci/check

# The layers of `make test`, and the suites that take too long to stand in it. Each in this order: one that fails
# does not keep the others from running.
LAYERS := check lint test-unit test-e2e test-console-unit
SUITES := trouble test-deploy test-dex test-alone test-browser

.PHONY: test
test: needs ## What every change must pass, within 20 minutes: all layers, whatever fails, and what came of each
	@.ci/layers $(LAYERS)

.PHONY: test-suites
test-suites: needs ## The slow suites, which a change must pass too before it is published
	@.ci/layers $(SUITES)

# Tests that do to the machine what tests beside them would suffer from are called TestAlone_….
ALONE := ^TestAlone_
# Without go vet, which would read every dependency once more: the linter runs it. Most tests wait more
# than they compute, so that four of a package run at a time also on two cores.
GOTEST := CGO_ENABLED=1 gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -race -vet=off -timeout 30m -parallel 4

.PHONY: test-go
test-go: $(call stamp,$(GOTESTSUM)) ## Run the Go tests of all modules, race detector on
	@.ci/needs
	$(GOTEST) -skip '$(ALONE)' $(TESTFLAGS) $(PACKAGES)

.PHONY: test-unit
test-unit: $(call stamp,$(GOTESTSUM)) ## Of the Go tests, those that are not end to end
	@.ci/needs
	$(GOTEST) -skip '$(ALONE)' $(TESTFLAGS) $(filter-out %/allinone/...,$(PACKAGES))

.PHONY: test-e2e
test-e2e: $(call stamp,$(GOTESTSUM)) ## Of the Go tests, those that are end to end
	@.ci/needs
	$(GOTEST) -skip '$(ALONE)' $(TESTFLAGS) $(filter %/allinone/...,$(PACKAGES))

.PHONY: test-alone
test-alone: $(call stamp,$(GOTESTSUM)) ## Run the Go tests that must have the machine for themselves, one by one
	@.ci/needs
	$(GOTEST) -p 1 -parallel 1 -run '$(ALONE)' $(TESTFLAGS) $$(git grep -l '^func TestAlone_' -- '*_test.go' | xargs -n 1 dirname | sort -u | sed 's|^|./|')

.PHONY: trouble
trouble: ## Run every fault on every plane of Bitbucket against the built product, and print how long each took to mend
	@.ci/needs
	go test -count 1 -vet=off -timeout 30m -run '^TestTrouble$$' -v ./services/allinone/e2e -trouble.all

FOR := 1h

.PHONY: chaos
chaos: ## Have people push through trouble of every kind, in an order that the printed seed gives, for FOR=1h
	@.ci/needs
	go test -count 1 -vet=off -timeout 0 -run '^TestChaos$$' -v ./services/allinone/e2e -chaos.for $(FOR)

PUSHES := 10000
SEED := 0
ROLLS := 20

.PHONY: chaos-cluster
chaos-cluster: ## Kill, freeze and cut off processes of a whole cluster, and have their clocks jump, for FOR=1h while people push, PUSHES=10000 at most; SEED chooses the faults
	@.ci/needs
	go test -count 1 -vet=off -timeout 0 -run '^TestAlone_ChaosCluster$$' -v ./services/allinone/e2e -cluster.for $(FOR) -cluster.pushes $(PUSHES) -cluster.seed $(SEED) -cluster.rate 8 -cluster.repositories 12 -cluster.clocks

.PHONY: rolling
rolling: ## Restart everything of a cluster ROLLS=20 times under load: no call fails, and no push is lost
	@.ci/needs
	go test -count 1 -vet=off -timeout 0 -run '^TestAlone_RollingRestarts$$' -v ./services/allinone/e2e -cluster.rolls $(ROLLS) -cluster.seed $(SEED)

# The earlier programs are built from their commit, beside this tree.
FROM ?= $(shell cat .ci/released)

.PHONY: upgrade
upgrade: ## Roll a cluster under load from the programs of FROM=<commit or tag> (the last release) to these, back and forward: no call fails, and each reads what the other wrote
	@.ci/needs
	@mkdir -p bin
	rm -rf bin/from bin/upgrade-from && git worktree prune && git worktree add --detach --force bin/from $(FROM)
	cd bin/from && go build -o $(ROOT)/bin/upgrade-from/ $(foreach b,auth repo webhook deployer gateway,./services/$(b)/cmd/$(b))
	git worktree remove --force bin/from
	go test -count 1 -vet=off -timeout 0 -run '^TestAlone_RollingRestarts$$' -v ./services/allinone/e2e -cluster.from $(ROOT)/bin/upgrade-from -cluster.rolls 3 -cluster.seed $(SEED)

CALLS := 3000
SERVICES := repo,auth,webhook,gateway

.PHONY: frozen
frozen: ## Have one of three processes of a service stand still under load, of each of SERVICES=repo,auth,webhook,gateway in turn, and print how long CALLS=3000 calls took once all knew
	@.ci/needs
	go test -count 1 -vet=off -timeout 0 -run '^TestAlone_OneOfThreeFrozen$$' -v ./services/allinone/e2e -frozen.services $(SERVICES) -frozen.calls $(CALLS) -cluster.seed $(SEED)

.PHONY: day
day: ## Simulate a day of 1,000 apps on 200 repositories with one in twenty deliveries lost, and print what it cost (some minutes)
	@.ci/needs
	go test -count 1 -vet=off -timeout 60m -run '^TestDay$$' -v ./services/deployer -day.hours 24 -day.apps 1000

.PHONY: bench
bench: ## Run the benchmarks and print their tables
	@.ci/needs
	go test -run '^$$' -skip '^BenchmarkSpeed$$' -bench . -benchtime 2s $(PACKAGES)
	@$(MAKE) --no-print-directory speed
ifeq ($(NODE),yes)
	@.ci/needs git chromium node npm
	@$(MAKE) --no-print-directory console
	@mkdir -p bin && go build -o bin/console-test ./services/allinone/cmd/devpilot
	cd $(CONSOLE) && DEVPILOT_PROGRAM=$(ROOT)/bin/console-test npm run --silent bench
else
	@echo "The console's figures are left out: they need Node.js 20 or newer with npm."
endif

.PHONY: structure
structure: ## Print packages, imports between them, the largest ones and lines of Go
	@.ci/structure

# The earlier program is built from its commit, beside this tree.
BEFORE ?=
ROWS ?= .

.PHONY: speed
speed: ## Measure the built product from outside, and BEFORE=<commit> in the same run; ROWS=<regexp> chooses
	@.ci/needs git redis-server strace webhook bwrap
	@mkdir -p bin
ifneq ($(BEFORE),)
	rm -rf bin/before && git worktree prune && git worktree add --detach --force bin/before $(BEFORE)
	cd bin/before && go build -o $(ROOT)/bin/devpilot-before ./services/allinone/cmd/devpilot
	git worktree remove --force bin/before
endif
	go test -run '^$$' -bench '^BenchmarkSpeed$$' -benchtime 1x -timeout 60m ./services/allinone/e2e -speed.rows '$(ROWS)' $(if $(BEFORE),-speed.before $(ROOT)/bin/devpilot-before)

.PHONY: tidy
tidy: ## Tidy every module after changing dependencies
	.ci/modules
	for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy) || exit 1; done

.PHONY: clean
clean: ## Remove what was built; data in .devpilot stays
	rm -rf bin
