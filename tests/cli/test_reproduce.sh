#!/bin/sh
# test_reproduce.sh WEFT: a tiny claim by its path: verdict, figures, page; results that are kept; what fails; Ctrl-C; refusals.
. "$(dirname "$0")/lib.sh"
write_recipe
cat >claim.yaml <<'YAML'
title: a test of the machinery
sheet: "99"
claim: more steps give a lower loss
note: nothing is claimed of the world
seeds: 2
seconds: 0.2
task: {name: text, path: text.txt, length: 32}
model: {name: lm, layers: 2, width: 16, mixer: {name: softmax, heads: 2}}
train: {steps: 2, batch: 4, lr: 0.01, valid_batches: 4}
designs:
  short: {}
  long: {train: {steps: 20}}
  batchnorm: {model: {norm: batchnorm}}
  rms_part: {part: {slot: norm, spec: rmsnorm, width: 16, tokens: 64}}
time: {calls: 5}
show: [entropy_min, variance, parameters, grad_max, mflops]
pass:
  - {says: longer is better, holds: long.loss < short.loss}
  - {says: and more accurate by 200 points, holds: long.accuracy > short.accuracy + 200}
  - {says: norms of tokens have no gap, holds: short.gap < 1e-6}
  - {says: time goes by, holds: "min(short.ms, rms_part.ms) > 0"}
YAML

# a claim that does not hold is a result
expect 0 "a claim" "$weft" reproduce claim.yaml -o one -w page.md
has out 'holds: longer is better'
has out 'does not hold: and more accurate by 200 points'
has out 'holds: norms of tokens have no gap'
has out 'holds: time goes by'
has out 'verdict: does not hold'
has out '0 of 1 claims hold, 1 do not (3 of 4 criteria hold)'
has out 'entropy_min'
has page.md '# Reproductions'
has page.md '## claim'
has page.md '| loss | long |'
has page.md 'Verdict: \*\*does not hold\*\*'
[ "$(grep -c '"timing": false' one/results.jsonl)" = 6 ] || fail "three designs train with two seeds"
[ "$(grep -c '"timing": true' one/results.jsonl)" = 8 ] || fail "four designs are timed twice"

# the same again runs nothing and says the same
cp one/results.jsonl before
cp page.md first.md
expect 0 "again" "$weft" reproduce claim.yaml -o one -w page.md -q
same before one/results.jsonl
same first.md page.md

# the figures do not depend on the number of processes
losses() { grep '"timing": false' "$1" | sed 's/.*"design": \("[^,]*, "seed": [0-9]*\).*"loss": \([^,]*\),.*/\1 \2/' | sort; }
expect 0 "one process" "$weft" reproduce claim.yaml -o two -q --threads 1
losses one/results.jsonl >a
losses two/results.jsonl >b
same a b

# a killed session goes on; --fresh starts anew
head -3 before >one/results.jsonl
printf '{"key": "00' >>one/results.jsonl
expect 0 "after a kill" "$weft" reproduce claim.yaml -o one -q
losses one/results.jsonl | sort -u >b
same a b
expect 0 "fresh" "$weft" reproduce claim.yaml -o one -q --fresh
[ "$(grep -c . one/results.jsonl)" = 14 ] || fail "--fresh leaves $(grep -c . one/results.jsonl) lines"

# JSON, --set, the list
expect 0 "json" "$weft" reproduce claim.yaml -o one -q --json
has out '"format": "weft-reproductions-1"'
has out '"verdict": "does not hold"'
expect 0 "set" "$weft" reproduce claim.yaml -o one -q --set train.steps=1 --set seeds=1
has_not out 'seed 2'
expect 0 "list" "$weft" reproduce --list -o none
has out '07-peri'
has out 'claims: about'
expect 0 "list of one" "$weft" reproduce 07 --list -o none
has_not out '02-flow'
expect 0 "help" "$weft" reproduce --help
has out 'a run that diverges'
expect 0 "explain" "$weft" explain reproduce
has out 'designs'

# divergence is a result, a missing part is a failure; other designs go on
sed 's/short: {}/short: {train: {lr: 1e38, optimizer: sgd, momentum: 0, clip: 0, steps: 20}}/' claim.yaml >wild.yaml
expect 0 "divergence" "$weft" reproduce wild.yaml -o wild -q
has out 'short, seed 1: diverged: '
has out 'holds: longer is better'
sed 's/short: {}/short: {model: {mixer: sofmax}}/' claim.yaml >none.yaml
expect 1 "a missing part" "$weft" reproduce none.yaml -o failed -q
has out 'failed: '
has out 'softmax'
has out 'verdict: not run'
has failed/results.jsonl '"design": "long"'

# Ctrl-C keeps what is finished, and the same command goes on
sed 's/steps: 20/steps: 3000/' claim.yaml >slow.yaml
"$weft" reproduce slow.yaml -o slow -q >/dev/null 2>err &
pid=$!
i=0
while [ ! -f slow/results.jsonl ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done
kill -INT $pid
wait $pid
code=$?
[ $code -eq 130 ] || [ $code -eq 0 ] || fail "Ctrl-C: exit code $code"
[ $code -eq 0 ] || has err 'the same command continues'
[ -s slow/results.jsonl ] || fail "Ctrl-C lost what was finished"

# refusals
expect 2 "an unknown claim" "$weft" reproduce 07-perj
has err "did you mean '07-peri'"
expect 2 "no claim" "$weft" reproduce
has err '\-\-list'
sed 's/long.loss/log.loss/' claim.yaml >typo.yaml
expect 2 "an unknown design" "$weft" reproduce typo.yaml -o typo
has err "typo.yaml:18: there is no design 'log'; did you mean 'long'"
finish
