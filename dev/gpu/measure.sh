#!/bin/bash
# Tests, times and checks compute/cuda and accel on a machine with an NVIDIA GPU; needs dev/gpu/bin (build.sh), no Go.
#   bash dev/gpu/measure.sh [tests] [modules] [bench] [plans] [gemm] [attend] [racecheck] [memcheck] [host] [baseline] [sweep]
# Without arguments all but sweep. gemm needs nvcc, baseline and attend PyTorch (attend times cuDNN beside the kernels), memcheck and
# racecheck compute-sanitizer; the others the driver, NVRTC and cuBLASLt alone. LIMIT=seconds bounds all of it: parts that find no time
# left are named and count as failed. Logs go to $OUT, or dev/gpu/out when it is unset; RESULTS.md is written from them by hand.
cd "$(dirname "$0")/../.." || exit
root=$PWD bin=$PWD/dev/gpu/bin
OUT=${OUT:-dev/gpu/out}
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
chmod +x "$bin"/*.test
export LONGTAKE_REQUIRE_GPU=1 XDG_CACHE_HOME=${XDG_CACHE_HOME:-/tmp/longtake-cache} PYTHONUNBUFFERED=1 OUT
LIMIT=${LIMIT:-1500}
MODULES=${MODULES:-GPU}                                                     # tests; GPUs are those that compare with the host
BENCH=${BENCH:-Kernels|Linear$|FP8|Attend|Tiles|Forward|Convolve|Decode} # ATTEND are arguments of attend/bench.py
status=0

# limited NAME SECONDS FOLDER COMMAND...: runs a command in a folder for at most so long, its log in $OUT/NAME.log.
limited() {
  local name=$1 most=$2 folder=$3 began=$SECONDS code
  shift 3
  [ $((LIMIT - SECONDS)) -lt "$most" ] && most=$((LIMIT - SECONDS))
  if [ "$most" -lt 3 ]; then
    echo "== $name: no time left"
    status=1
    return
  fi
  (cd "$root/$folder" && timeout -k 3 "$most" "$@") > "$OUT/$name.log" 2>&1
  code=$?
  [ $code -eq 0 ] || status=1
  echo "== $name: code $code, $((SECONDS - began)) s$(counts "$OUT/$name.log")"
  grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$OUT/$name.log" | head -2
  [ $code -eq 0 ] || grep -E '^ *--- FAIL|^panic|_test\.go:[0-9]+: |error:' "$OUT/$name.log" | grep -v 'compiling ' | head -12 | cut -c1-220
}
counts() {
  local passed failed
  passed=$(grep -cE '^ *--- PASS' "$1")
  failed=$(grep -cE '^ *--- FAIL' "$1")
  [ $((passed + failed)) -eq 0 ] || echo ", $passed passed, $failed failed"
}
# tests NAME SECONDS PACKAGE PATTERN, benches likewise.
tests() { limited "$1" "$2" "$3" "$bin/$(basename "$3").test" -test.v -test.run "$4"; }
benches() {
  limited "$1" "$2" "$3" "$bin/$(basename "$3").test" -test.run '^$' -test.benchtime 1x -test.bench "$4"
  grep -E '^Benchmark' "$OUT/$1.log" | sed 's/  */ /g; s/\t/ /g' | cut -c1-170
}
# checks TOOL NAME SECONDS PACKAGE PATTERN: short tests under compute-sanitizer.
checks() { limited "$1-$2" "$3" "$4" compute-sanitizer --tool "$1" --error-exitcode 9 "$bin/$(basename "$4").test" -test.short -test.v -test.run "$5"; }

merges='GPUsMergeLikeTheHost/(default|neighbours|hashed|quantised|error_bound),_budget_1$'
plans='GPUsPlanLikeTheHost/(full|clamped|no_dense_pass|hashed|quantised_to_4_bits|no-drop)$'
operations='TestConformanceOnGPU$/^(copy|linear|norm|rope|add|activate|gather|time|noise|mix|clamp|match|attend_biased)'
for what in ${*:-tests modules bench plans gemm attend racecheck memcheck host baseline}; do
  case $what in
    tests) tests tests 200 compute/cuda . ;;
    modules)
      tests hashes 30 accel/ann "$MODULES"
      tests annsa 60 accel/annsa "$MODULES"
      tests annca 60 accel/annca "$MODULES"
      tests merges 90 accel/tempcache "$MODULES" ;;
    bench) benches bench 120 compute/cuda "$BENCH" ;;
    plans)
      benches plans 60 compute/cuda 'Plan|Select|Merge|Split|Hash'
      benches begin 60 accel/tempcache OnAGPU ;;
    host) limited host 60 compute/cuda "$bin/cuda.test" -test.run '^$' -test.bench Host -test.benchtime 0.3s && cat "$OUT/host.log" ;;
    gemm)
      limited nvcc 60 dev/gpu nvcc -O2 -shared -Xcompiler -fPIC -o "$OUT/libgemm.so" -x cu gemm.c -lcublasLt -Xlinker "-rpath,$(dirname "$(command -v nvcc)")/../lib64"
      LONGTAKE_GEMM=$OUT/libgemm.so benches gemm 60 compute/cuda BesideC
      rm -f "$OUT/libgemm.so" ;;
    attend) limited attend 240 dev/gpu/attend python3 bench.py ${ATTEND:-} && grep -E '^\{|ceilings|checks|built' "$OUT/attend.log" | cut -c1-330 ;;
    baseline) limited baseline 100 dev/gpu python3 baseline.py && cat "$OUT/baseline.log" ;;
    racecheck | memcheck)
      checks "$what" attention 90 compute/cuda 'AFewTiles|MoreKeys'
      checks "$what" merges 90 accel/tempcache "$merges"
      checks "$what" plans 90 accel/annsa "$plans"
      checks "$what" hashes 40 accel/ann GPU
      checks "$what" choices 60 accel/annca 'GPUs'
      checks "$what" operations 120 compute/cuda "$operations|ImagesOnGPU|Replayed"
      [ "$what" = memcheck ] && checks memcheck conformance 150 compute/cuda 'OnGPU|FP8|Replayed' ;;
    sweep) benches sweep 100 compute/cuda 'Sweep|Choices' ;;
    *) echo "unknown part $what" >&2; exit 2 ;;
  esac
done
{
  cat "$bin/commit.test"
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu --format=csv
} | tee "$OUT/machine.log"
echo "== all: $SECONDS s, status $status"
exit $status
