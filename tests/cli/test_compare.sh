#!/bin/sh
# test_compare.sh WEFT: a race of tiny designs: report and results, a design that diverges, kill -9 and continuation, refusals.
. "$(dirname "$0")/lib.sh"
write_recipe
cat >race.yaml <<'YAML'
question: Does <norm> matter & how?
task: {name: text, path: text.txt, length: 32}
model: {name: lm, layers: 1, width: 32, mixer: {name: softmax, heads: 2}}
train: {steps: 12, batch: 4, lr: 1e-2, valid_every: 6, valid_batches: 2}
seeds: 2
designs:
  layer:
  rms: {model: {norm: rmsnorm}}
YAML

expect 0 "a race" "$weft" compare race.yaml -o one
has out 'report:  one/report.html'
has one/report.html 'Does &lt;norm&gt; matter &amp; how?'
has one/report.html 'Chart.js'
has one/results.json '"state": "done"'
has err 'design'
grep -c '"seed": 2' one/results.json | grep -qx 2 || fail "two designs have a second seed"
if grep -Eq '(src|href)="?(https?:)?//' one/report.html; then fail "the report asks the network"; fi

# the same again changes nothing: everything is done
cp one/results.json before.json
expect 0 "a finished race" "$weft" compare race.yaml -o one -q
same before.json one/results.json
expect 0 "a changed recipe" "$weft" compare race.yaml -o set -q --set train.steps=2 --set train.valid_every=2
has set/report.html 'weft compare race.yaml --set train.steps=2 --set train.valid_every=2'

# a grid of two axes, sizes made equal
cat >grid.yaml <<'YAML'
task: {name: text, path: text.txt, length: 32}
model: {name: lm, layers: 1, width: 32, mixer: {name: softmax, heads: 2}, channel: {name: mlp, hidden: 64}}
train: {steps: 4, batch: 4, lr: 0.01, valid_batches: 2}
seeds: 2
size: match-parameters
designs: {wide: {}, gated: {model: {channel: swiglu}}}
grid: {model.norm: [layernorm, {name: groupnorm, groups: 4, label: group4}], model.placement: [pre, post]}
YAML
expect 0 "a grid" "$weft" compare grid.yaml -o grid -q
has grid/results.json '"path": "model.norm", "values": ."layernorm", "group4".'
has grid/results.json '"name": "group4-post"'
has grid/results.json '"solved": "model.channel.hidden'
has grid/report.html 'Validation loss by model.norm and model.placement'
grep -o '"parameters": [0-9]*' grid/results.json | awk '{ n[NR] = $2 } END { for (i in n) if (n[i] < 0.98 * n[1] || n[i] > 1.02 * n[1]) exit 1 }' ||
    fail "parameters differ by more than 2 %"
sed 's/layernorm, {/task, {/' grid.yaml >bad.yaml
expect 2 "a norm that is none" "$weft" compare bad.yaml -o bad -q
has err "no norm 'task'"
sed 's/match-parameters/match-flips/' grid.yaml >bad.yaml
expect 2 "a size that is none" "$weft" compare bad.yaml -o bad -q
has err 'size: match-parameters'

# both orders of design give the same losses: data and weights depend on the seed alone
expect 0 "json" "$weft" compare race.yaml -o two -q --json
has out '"format": "weft-results-1"'
strip() { sed -e 's/"valid": /\n&/g' "$1" | grep '^"valid"' | sed -e 's/"seconds": [^,]*,//g'; }
strip one/results.json >a
strip two/results.json >b
same a b

# killed in the middle, the same command goes on and gives the same losses
sed 's/steps: 12/steps: 400/; s/valid_every: 6/valid_every: 200/' race.yaml >long.yaml
expect 0 "uninterrupted" "$weft" compare long.yaml -o whole -q
"$weft" compare long.yaml -o part -q --checkpoint-minutes 0.002 >/dev/null 2>&1 &
pid=$!
i=0
while [ ! -f part/results.json ] && [ $i -lt 400 ]; do sleep 0.05; i=$((i + 1)); done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
expect 0 "continued after kill -9" "$weft" compare long.yaml -o part -q
strip whole/results.json >a
strip part/results.json >b
same a b

# Ctrl-C leaves results and says how to go on
"$weft" compare long.yaml -o stopped -q >/dev/null 2>err &
pid=$!
i=0
while [ ! -d stopped ] && [ $i -lt 400 ]; do sleep 0.05; i=$((i + 1)); done
sleep 0.3
kill -INT $pid
wait $pid
code=$?
if [ $code -eq 130 ]; then has err 'the same command continues' && has stopped/report.html 'still running'; elif [ $code -ne 0 ]; then fail "Ctrl-C: exit code $code"; fi

# a design that diverges is a result
cat >wild.yaml <<'YAML'
task: {name: text, path: text.txt, length: 32}
model: {name: lm, layers: 1, width: 32, mixer: {name: softmax, heads: 2}}
train: {steps: 12, batch: 4, lr: 0.01}
designs:
  calm: {}
  wild: {train: {lr: 1e38, optimizer: sgd, momentum: 0, clip: 0}}
YAML
expect 0 "a diverging design" "$weft" compare wild.yaml -o wild
has wild/results.json '"state": "failed"'
has wild/report.html 'failed in 2 of 2'
has out 'Diverged (failed, or ended 0.5 above the lowest validation loss) in wild 2 of 2 seeds'

# refusals name file, line and the fix
expect 2 "changed design" "$weft" compare race.yaml -o one --set train.lr=0.02
has err "choose another folder"
printf 'task: {name: text, path: text.txt}\nmodel: {name: lm}\n' >none.yaml
expect 2 "no designs" "$weft" compare none.yaml -o none
has err "designs"
sed 's/seeds: 2/seeds: 1/' race.yaml >single.yaml
sed 's|rms: {|../rms: {|' race.yaml >path.yaml
expect 2 "a path as a name" "$weft" compare path.yaml -o path
has err "path.yaml"
expect 2 "one seed" "$weft" compare single.yaml -o single
has err "single.yaml:5"
sed 's/rms: .*/rms: {model: {norm: rmsnrom}}/' race.yaml >typo.yaml
expect 2 "misspelt part" "$weft" compare typo.yaml -o typo
has err "rmsnorm"
finish
