#!/bin/bash
# Builds the test binaries that measure.sh runs; needs Go, no GPU and no CUDA.
set -e
cd "$(dirname "$0")/../.."
mkdir -p dev/gpu/bin
for p in compute/cuda accel/ann accel/annsa accel/annca accel/tempcache; do
  CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go test -c -trimpath -ldflags=-s -o "dev/gpu/bin/$(basename $p).test" ./$p
done
git log -1 --format=%h > dev/gpu/bin/commit.test
