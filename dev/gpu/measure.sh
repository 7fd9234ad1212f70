#!/bin/bash
# Tests, checks and times compute/cuda and accel on a machine with an NVIDIA GPU; needs dev/gpu/bin (build.sh), no Go.
#   bash dev/gpu/measure.sh [tests] [modules] [memcheck] [racecheck] [plans] [bench] [gemm] [attend] [host] [baseline] [sweep]
# Without arguments all but sweep. First tests run side by side, after one process has compiled the kernels; then what watches them (racecheck,
# memcheck), SIDE processes at a time in both; what times has the GPU alone afterwards. Programs that share a GPU take turns of milliseconds: tests, which wait
# for every result, would starve beside those that are watched. gemm needs nvcc, baseline and attend PyTorch (attend times cuDNN beside the
# kernels, and compares with float64), memcheck and racecheck compute-sanitizer; the others the driver, NVRTC and cuBLASLt alone.
# LIMIT=seconds bounds all of it, and RESERVE of them are kept for what times: parts that find no time left are named and count as failed.
# SKIP=pattern leaves out checks by name, such as "racecheck plans", and says so. Logs go to $OUT, or dev/gpu/out when it is unset; RESULTS.md is written from them by hand.
cd "$(dirname "$0")/../.." || exit
set -f # patterns are no file names
root=$PWD bin=$PWD/dev/gpu/bin
OUT=${OUT:-dev/gpu/out}
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
for p in cuda ann annsa annca tempcache; do chmod +x "$bin/$p.test"; done
export LONGTAKE_REQUIRE_GPU=1 XDG_CACHE_HOME=${XDG_CACHE_HOME:-/tmp/longtake-cache} PYTHONUNBUFFERED=1 OUT
LIMIT=${LIMIT:-600} SIDE=${SIDE:-$(($(nproc) < 4 ? $(nproc) : 4))}
TESTS=${TESTS:-.} PLAY=${PLAY:-Policies|EmbeddedModel} # of compute/cuda; PLAY's are on the CPU as well
MODULES=${MODULES:-GPU}                                                     # tests; GPUs are those that compare with the host
BENCH=${BENCH:-Kernels|Linear$|FP8|AddNorm|Attend|Tiles|Forward|Convolve|Decode} # ATTEND are arguments of attend/bench.py
failed=$OUT/failed.log plain=() watched=() times=() end=$LIMIT
rm -f "$failed" "$OUT"/{host,baseline,attend}.log

# limited NAME SECONDS FOLDER COMMAND...: runs a command in a folder for at most so long, its log in $OUT/NAME.log.
limited() {
  local name=$1 most=$2 folder=$3 began=$SECONDS code
  shift 3
  [ $((end - SECONDS)) -lt "$most" ] && most=$((end - SECONDS))
  if [ "$most" -lt 3 ]; then
    echo "== $name: no time left" | tee -a "$failed"
    return
  fi
  (cd "$root/$folder" && timeout -k 3 "$most" "$@") > "$OUT/$name.log" 2>&1
  code=$?
  [ $code -eq 0 ] || echo "$name: code $code" >> "$failed"
  {
    echo "== $name: code $code, $((SECONDS - began)) s$(counts "$OUT/$name.log")"
    grep -E 'ERROR SUMMARY|RACECHECK SUMMARY|^checks: ' "$OUT/$name.log" | sort | uniq -c | head -3
    [ $code -eq 0 ] || grep -E '^ *--- FAIL|^panic|_test\.go:[0-9]+: |[Ee]rror:|hazard' "$OUT/$name.log" | grep -v 'compiling ' | head -12 | cut -c1-220
  } > "$OUT/$name.said"
  cat "$OUT/$name.said" # in one piece, whatever runs beside it
  rm -f "$OUT/$name.said"
}
counts() {
  local passed failed
  passed=$(grep -cE '^ *--- PASS' "$1")
  failed=$(grep -cE '^ *--- FAIL' "$1")
  [ $((passed + failed)) -eq 0 ] || echo ", $passed passed, $failed failed"
}
# tests NAME SECONDS PACKAGE PATTERN [FLAGS], benches likewise; checked TOOL NAME SECONDS PACKAGE PATTERN are short tests under compute-sanitizer.
tests() { limited "$1" "$2" "$3" "$bin/$(basename "$3").test" -test.v -test.run "$4" ${5:-}; }
benches() {
  limited "$1" "$2" "$3" "$bin/$(basename "$3").test" -test.run '^$' -test.benchtime 1x -test.bench "$4"
  grep -E '^Benchmark' "$OUT/$1.log" | sed 's/  */ /g; s/\t/ /g' | cut -c1-170
}
checked() { limited "$1-$2" "$3" "$4" bash "$root/dev/gpu/sanitize.sh" "$1" "$bin/$(basename "$4").test" -test.short -test.v -test.run "$5"; }

tiles='AFewTiles|MoreKeys' # a minute of its own
alone='RunsOut|KernelResources|KernelsCompile' # takes all memory; is what compiles; needs no GPU
merges='GPUsMergeLikeTheHost/((default|neighbours|hashed|hash_tables|quantised|change_bound|rest|spread),_budget_1|rest,_budget_2)$'
plans='GPUsPlanLikeTheHost/(full|clamped|no_dense_pass|split|hashed|hash_tables,_no_dense_pass|quantised_to_4_bits|no-drop)$'
operations='TestConformanceOnGPU$/^(copy|linear|norm|rope|add|activate|gather|time|noise|mix|clamp|match|attend_biased)'

# Queues: what may run beside others, what may run beside others that are watched, what may not.
side() { plain+=("$*"); }
watch() { watched+=("checked $*"); }
later() { times+=("$*"); }
for what in ${*:-tests modules memcheck racecheck plans bench gemm attend host baseline}; do
  case $what in
    tests)
      side tests play 300 compute/cuda "$PLAY"
      side tests tests 300 compute/cuda "$TESTS" "-test.skip=$alone|$tiles|Policies|EmbeddedModel"
      side tests tiles 200 compute/cuda "$tiles"
      later tests memory 40 compute/cuda RunsOut ;;
    modules)
      side tests merges 200 accel/tempcache "$MODULES"
      side tests annsa 200 accel/annsa "$MODULES"
      side tests annca 100 accel/annca "$MODULES"
      side tests hashes 60 accel/ann "$MODULES" ;;
    memcheck)
      watch memcheck conformance 300 compute/cuda 'OnGPU|FP8|AddNormOfABFloat16|Replayed|Parts|Pieces|Quantised'
      watch memcheck attention 300 compute/cuda "$tiles"
      watch memcheck merges 300 accel/tempcache "$merges"
      watch memcheck plans 300 accel/annsa "$plans"
      watch memcheck choices 200 accel/annca GPUs
      watch memcheck hashes 200 accel/ann GPU ;;
    racecheck)
      watch racecheck operations 300 compute/cuda "$operations|ImagesOnGPU|Replayed|Pieces|Quantised|AddNormOfABFloat16" # Parts share no memory
      watch racecheck merges 300 accel/tempcache "$merges"
      watch racecheck plans 300 accel/annsa "$plans"
      watch racecheck attention 300 compute/cuda "($tiles)/own"
      watch racecheck portable 300 compute/cuda "($tiles)/portable"
      watch racecheck choices 200 accel/annca GPUs
      watch racecheck hashes 200 accel/ann GPU ;;
    attend)
      side limited float64 200 dev/gpu/attend python3 bench.py --no-time --cases 0:10
      later limited attend 60 dev/gpu/attend python3 bench.py --no-check --mode none --keys 4680,32760,131040,524160 ${ATTEND:-} ;;
    plans)
      later benches plans 60 compute/cuda 'Plan|Select|Merge|Split|Hash'
      later benches begin 60 accel/tempcache OnAGPU ;;
    bench) later benches bench 120 compute/cuda "$BENCH" ;;
    gemm) later gemm ;;
    host) later limited host 60 compute/cuda "$bin/cuda.test" -test.run '^$' -test.bench Host -test.benchtime 0.3s ;;
    baseline) later limited baseline 100 dev/gpu python3 baseline.py ;;
    sweep) later benches sweep 100 compute/cuda 'Sweep|Norms|Choices' ;;
    *) echo "unknown part $what" >&2; exit 2 ;;
  esac
done
gemm() {
  limited nvcc 60 dev/gpu nvcc -O2 -shared -Xcompiler -fPIC -o "$OUT/libgemm.so" -x cu gemm.c -lcublasLt -Xlinker "-rpath,$(dirname "$(command -v nvcc)")/../lib64"
  LONGTAKE_GEMM=$OUT/libgemm.so benches gemm 60 compute/cuda BesideC
  rm -f "$OUT/libgemm.so"
}
show() { # what logs of parts have to say that is not a benchmark's line
  [ -e "$OUT/host.log" ] && grep -E '^Benchmark' "$OUT/host.log"
  [ -e "$OUT/baseline.log" ] && cat "$OUT/baseline.log"
  [ -e "$OUT/attend.log" ] && grep -E '^\{|ceilings|built' "$OUT/attend.log" | cut -c1-330
}

tests resources 60 compute/cuda KernelResources
[ ${#times[@]} -gt 0 ] && end=$((LIMIT - ${RESERVE:-100}))
together() { # commands, SIDE at a time
  for job in "$@"; do
    [[ -n ${SKIP:-} && $job =~ $SKIP ]] && echo "== left out: $job" && continue
    while [ "$(jobs -rp | wc -l)" -ge "$SIDE" ]; do wait -n; done
    $job &
  done
  wait
}
together "${plain[@]}"
together "${watched[@]}"
echo "== checked: $SECONDS s"
end=$LIMIT
for job in "${times[@]}"; do $job; done
show
{
  cat "$bin/commit.test"
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu --format=csv
} | tee "$OUT/machine.log"
if [ -e "$failed" ]; then
  echo "== all: $SECONDS s, failed: $(tr '\n' ';' < "$failed")"
  exit 1
fi
echo "== all: $SECONDS s, nothing failed"
