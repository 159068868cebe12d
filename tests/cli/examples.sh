#!/bin/sh
# examples.sh TRAIN GENERATE: the two example programs do what their first lines say.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
i=0
while [ $i -lt 400 ]; do echo "the cat sat on the mat and the dog lay by the fire, number $i"; i=$((i + 1)); done >"$work/book.txt"
"$1" "$work/book.txt" "$work/run" >"$work/train.out" 2>"$work/train.err"
grep -q 'parameters; after "the "' "$work/train.out"
grep -q 'step 30 of 30' "$work/train.err"
"$2" "$work/run/trained.safetensors" "the cat" >"$work/text"
[ "$(wc -c <"$work/text")" -ge 200 ]
if "$2" "$work/nothing.safetensors" "x" >/dev/null 2>"$work/err"; then exit 1; fi
grep -q 'nothing.safetensors' "$work/err"
