# test_stop.sh: Ctrl-C makes a checkpoint and exits 130; a loss that is not finite names its operator and keeps the checkpoint.
. "$(dirname "$0")/lib.sh"
write_recipe
sed -i 's/steps: 30/steps: 3000/; s/valid_every: 10, //' tiny.yaml

# sh starts background jobs with SIGINT ignored; SIGTERM takes the same way as Ctrl-C
"$weft" train tiny.yaml -o stopped --quiet >out 2>err &
pid=$!
sleep 0.5
kill -TERM "$pid"
wait "$pid"
code=$?
[ "$code" -eq 130 ] || fail "stopped run: exit code $code, not 130: $(tail -2 err)"
has err 'stopped at step'
has err '--resume goes on'
at=$(sed -n 's/.*stopped at step \([0-9]*\).*/\1/p' err)
[ "${at:-0}" -gt 0 ] && "$weft" info stopped | grep -q "^step: $at" || fail "the checkpoint is not of step $at"

cat >diverge.yaml <<'YAML'
task: {name: text, path: text.txt, length: 32}
model: {name: lm, layers: 2, width: 32, mixer: {name: softmax, heads: 2}}
train: {steps: 2000, batch: 8, lr: 1e30, warmup: 0, schedule: constant, clip: 0, optimizer: sgd, checkpoint_minutes: 0}
YAML
expect 1 "a run that diverges" "$weft" train diverge.yaml --quiet
has err 'step [0-9]'
has err 'no checkpoint'
expect 1 "a run that diverges after a checkpoint" "$weft" train diverge.yaml -o later --quiet --set train.checkpoint_minutes=0.000001
has err 'keeps the last good checkpoint (step 1)'
expect 0 "the checkpoint is whole" "$weft" info later --brief
has out '^step: 1'
finish
