#!/bin/sh
# run.sh: the speed table, each figure as a ratio measured in one run: Weft and its peer take turns, medians of the pairs.
#
# usage: bench/run.sh FOLDER [products|rows|attention|mixers|train|generate]...
# FOLDER holds the built programs (./dev bench passes it). The peer is PyTorch: the first of $WEFT_PYTHON, .venv/bin/python,
# python3 that can import torch; without one the comparisons are skipped and say so.
# WEFT_BENCH_MIXERS (all), WEFT_BENCH_LENGTHS (256 1024 4096): what `mixers` measures; WEFT_BENCH_COMPILE (yes).
# WEFT_BENCH_PAIRS (3): pairs of runs; WEFT_THREADS (2): threads of both sides.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- products rows attention mixers train generate
pairs=${WEFT_BENCH_PAIRS:-3}
WEFT_THREADS=${WEFT_THREADS:-2}
OMP_NUM_THREADS=$WEFT_THREADS
export WEFT_THREADS OMP_NUM_THREADS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$here/.."

python=
for p in "${WEFT_PYTHON:-}" .venv/bin/python python3; do
    if [ -n "$p" ] && "$p" -c 'import torch' 2>/dev/null; then python=$p && break; fi
done

peer() { # is there one?
    [ -n "$python" ] && return 0
    echo "skipped: no Python with torch (pip install torch==2.13.0 into .venv, or set WEFT_PYTHON)"
    return 1
}

# median FILE: of one number a line
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { if (NR) printf "%.1f\n", (NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2); else print "nan" }'; }

# field NAME FILE: a number of a JSON object with a field a line
field() { sed -n "s/^ *\"$1\": \([-0-9.e+]*\),*$/\1/p" "$2"; }

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", (b > 0 ? a / b : 0) }'; }

products() { "$bin/bench_matmul"; }
rows() { "$bin/bench_rows"; }
norms() { "$bin/bench_norms"; }

# A model with Unified Normalization, folded, against the same network without any norm: both weigh and compute alike.
fold() {
    for norm in unified none; do
        "$bin/weft" train bench/lm.yaml -o "$work/$norm" --set "model.norm=$norm" --set train.steps=2 --set train.batch=1 \
            --set train.valid_batches=1 >/dev/null
    done
    "$bin/weft" transform fold "$work/unified" -o "$work/folded.safetensors" >/dev/null
    "$bin/bench_fold" "$work/none" "$work/folded.safetensors"
}

attention() {
    peer || return 0
    shapes="16x256x8x64 4x1024x8x64 1x4096x8x64"
    i=0
    while [ $i -lt "$pairs" ]; do
        # shellcheck disable=SC2086
        "$bin/bench_attention" "$WEFT_THREADS" float32 1 $shapes >>"$work/ours"
        # shellcheck disable=SC2086
        "$python" bench/attention.py "$WEFT_THREADS" float32 1 $shapes >>"$work/theirs"
        i=$((i + 1))
    done
    echo "attention, causal, float32, forward and backward, B x L x H x d (at least 1.2):"
    for s in $shapes; do
        awk -v s="$s" '$1 == s { print $3 }' "$work/ours" >"$work/a"
        awk -v s="$s" '$1 == s { print $3 }' "$work/theirs" >"$work/b"
        a=$(median "$work/a") b=$(median "$work/b")
        echo "  $s  weft $a ms, torch $b ms: $(ratio "$b" "$a") x"
    done
}

# total NAME FILE: the median of the last column of NAME's lines
total() {
    awk -v n="$1" '$1 == n { print $4 }' "$2" >"$work/column"
    median "$work/column"
}

# one length of the mixers: every mixer's runs and its peer's take turns
mixers_at() {
    i=0
    : >"$work/ours" && : >"$work/eager" && : >"$work/compile"
    while [ $i -lt "$pairs" ]; do
        for m in $names; do
            "$bin/bench_mixers" "$WEFT_THREADS" "$1" "$m" >>"$work/ours" || true
            "$python" bench/mixers.py "$WEFT_THREADS" eager "$1" "$m" >>"$work/eager"
            [ "${WEFT_BENCH_COMPILE:-yes}" != yes ] || "$python" bench/mixers.py "$WEFT_THREADS" compile "$1" "$m" >>"$work/compile"
        done
        i=$((i + 1))
    done
    for m in $names; do
        a=$(total "$m" "$work/ours") b=$(total "$m" "$work/eager")
        printf '  %-20s %-8s weft %9s ms, eager %9s ms: %6s x' "$m" "$1" "$a" "$b" "$(ratio "$b" "$a")"
        if [ -s "$work/compile" ]; then
            c=$(total "$m" "$work/compile")
            printf ', compiled %9s ms: %6s x' "$c" "$(ratio "$c" "$a")"
        fi
        printf '\n'
    done
}

mixers() {
    peer || return 0
    names=${WEFT_BENCH_MIXERS:-$("$bin/bench_mixers" list | cut -d' ' -f1)}
    echo "token mixers, width 384, 6 heads, float32, forward and backward (at least 1.5 x eager, 1.0 x compiled):"
    for length in ${WEFT_BENCH_LENGTHS:-256 1024 4096}; do mixers_at "$((4096 / length))x$length"; done
    echo "growth of the time of one sequence from 1024 to 4096 tokens (linear mixers: at most 4.4):"
    for m in $names; do
        one=$("$bin/bench_mixers" "$WEFT_THREADS" 1x1024 "$m" | awk '{ print $4 }') four=$("$bin/bench_mixers" "$WEFT_THREADS" 1x4096 "$m" | awk '{ print $4 }')
        printf '  %-20s %s\n' "$m" "$(ratio "${four:-0}" "${one:-0}")"
    done
}

# train_pair NAME MODE PRECISION TARGET: a training step against one mode of the peer
train_pair() {
    : >"$work/a" && : >"$work/b" && : >"$work/ma" && : >"$work/mb"
    i=0
    while [ $i -lt "$pairs" ]; do
        "$bin/weft" bench bench/lm.yaml --steps 5 -n 1 --prompt 1 --json --set "train.precision=$3" >"$work/ours.json"
        field train_step_seconds "$work/ours.json" | awk '{ print 1000 * $1 }' >>"$work/a"
        field process_peak_bytes "$work/ours.json" | awk '{ print $1 / 1048576 }' >>"$work/ma"
        "$python" bench/lm.py train "$2" 5 >"$work/theirs"
        awk '{ print $2 }' "$work/theirs" >>"$work/b"
        awk '{ print $4 }' "$work/theirs" >>"$work/mb"
        i=$((i + 1))
        [ "$2" != bf16 ] || [ "$(median "$work/b" | cut -d. -f1)" -lt 20000 ] || break # hopeless there: one pair tells enough
    done
    a=$(median "$work/a") b=$(median "$work/b")
    echo "  $1: weft $a ms, torch $b ms: $(ratio "$b" "$a") x (at least $4); peak memory $(ratio "$(median "$work/ma")" "$(median "$work/mb")") of torch's (at most 0.60)"
}

train() {
    peer || return 0
    echo "training step, 6 layers, width 384, length 256, batch 16:"
    train_pair "float32, against eager" eager float32 1.3
    train_pair "float32, against torch.compile" compile float32 1.1
    train_pair "bfloat16, against autocast" bf16 bfloat16 1.3
}

generate() {
    peer || return 0
    : >"$work/a" && : >"$work/b" && : >"$work/c"
    i=0
    while [ $i -lt "$pairs" ]; do
        "$bin/weft" bench bench/lm.yaml --steps 1 --prompt 1 -n 512 --json --set model.length=640 >"$work/ours.json"
        field decode_tokens_per_second "$work/ours.json" >>"$work/a"
        "$python" bench/lm.py generate 512 | awk '{ print $2 }' >>"$work/b"
        "$bin/weft" bench bench/lm.yaml --steps 1 --prompt 1 -n 512 --json --set model.length=640 --precision bfloat16 >"$work/ours.json"
        field decode_tokens_per_second "$work/ours.json" >>"$work/c"
        i=$((i + 1))
    done
    a=$(median "$work/a") b=$(median "$work/b") c=$(median "$work/c")
    echo "generate, batch 1, 512 tokens: weft $a tokens/s, torch eager with a KV cache $b: $(ratio "$a" "$b") x (at least 5)"
    echo "  with bfloat16 weights (the peer stays float32): $c tokens/s: $(ratio "$c" "$b") x"
}

for part in "$@"; do
    case $part in
    products | rows | norms | fold | attention | mixers | train | generate) "$part" ;;
    *) echo "run.sh: unknown part '$part'; known: products rows norms fold attention mixers train generate" >&2 && exit 2 ;;
    esac
done
