#!/usr/bin/env bash
# Makes api.gen.go and reasons.gen.go, here or in the directory that is named, of the OpenAPI document.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-.} document=../../internal/openapi/openapi.json
oapi-codegen -config oapi-codegen.yaml -o "$out/api.gen.go" "$document"
GOWORK=off go run ./cmd/gen "$document" "$out/reasons.gen.go"
