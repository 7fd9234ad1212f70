#!/bin/bash
# Tests, times and checks compute/cuda on a machine with an NVIDIA GPU; needs dev/gpu/bin (build.sh), no Go.
#   bash dev/gpu/measure.sh [tests] [bench] [host] [gemm] [baseline] [attend] [memcheck] [racecheck] [sweep]     (no argument: all but sweep)
# gemm needs nvcc, baseline and attend PyTorch, memcheck and racecheck compute-sanitizer; the others the driver, NVRTC and cuBLASLt alone.
# Logs go to $OUT, or dev/gpu/out when it is unset. RESULTS.md is written from them by hand.
cd "$(dirname "$0")/../.." || exit
OUT=${OUT:-dev/gpu/out}
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
test=$PWD/dev/gpu/bin/cuda.test
chmod +x "$test"
export LONGTAKE_REQUIRE_GPU=1 XDG_CACHE_HOME=${XDG_CACHE_HOME:-/tmp/longtake-cache} PYTHONUNBUFFERED=1
here=$PWD
cd compute/cuda || exit
status=0
for what in ${*:-tests bench host gemm baseline attend memcheck racecheck}; do
  start=$SECONDS
  case $what in
    sweep) timeout -k 5 100 "$test" -test.run "^$" -test.bench "Sweep|Choices" -test.benchtime 1x >"$OUT/sweep.log" 2>&1 || status=1; tail -3 "$OUT/sweep.log" ;;
    tests) timeout -k 5 150 "$test" -test.v >"$OUT/tests.log" 2>&1 || status=1
      grep -vE '^(=== |--- PASS|    --- PASS)' "$OUT/tests.log" | head -c 9000 ;;
    bench) timeout -k 5 100 "$test" -test.run '^$' -test.bench "${BENCH:-Kernels|Linear|FP8|Attend|Tiles|Forward|Convolve|Decode|Merge}" -test.benchtime "${BENCHTIME:-1x}" >"$OUT/bench.log" 2>&1 || status=1
      cat "$OUT/bench.log" ;;
    host) timeout -k 5 100 "$test" -test.run '^$' -test.bench Host -test.benchtime 0.3s >"$OUT/host.log" 2>&1 || status=1
      cat "$OUT/host.log" ;;
    gemm) (cd "$OUT" && nvcc -O2 -o gemm -x cu "$here/dev/gpu/gemm.c" -lcublasLt && timeout -k 5 60 ./gemm && rm gemm) >"$OUT/gemm.log" 2>&1 || status=1
      cat "$OUT/gemm.log" ;;
    attend) LIMIT=240 bash "$here/dev/gpu/attend/run.sh" >"$OUT/attend.log" 2>&1 || status=1
      tail -40 "$OUT/attend.log" ;;
    baseline) timeout -k 5 100 python3 "$here/dev/gpu/baseline.py" >"$OUT/baseline.log" 2>&1 || status=1
      cat "$OUT/baseline.log" ;;
    memcheck|racecheck) timeout -k 5 "${CHECK_LIMIT:-200}" compute-sanitizer --tool "$what" --error-exitcode 9 "$test" -test.short -test.v \
      -test.run "${CHECK:-OnGPU|FP8|Replayed}" >"$OUT/$what.log" 2>&1 || status=1
      tail -15 "$OUT/$what.log" ;;
    *) echo "unknown part $what"; exit 2 ;;
  esac
  echo "== $what: $((SECONDS - start)) s"
done
{ cat "$here/dev/gpu/bin/commit.test"
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu --format=csv; } | tee "$OUT/machine.log"
exit $status
