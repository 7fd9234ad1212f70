#!/bin/bash
# Builds the test binary that measure.sh runs; needs Go, no GPU and no CUDA.
set -e
cd "$(dirname "$0")/../.."
mkdir -p dev/gpu/bin
CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go test -c -trimpath -ldflags=-s -o dev/gpu/bin/cuda.test ./compute/cuda
git log -1 --format=%h > dev/gpu/bin/commit.test
