# test_train.sh: train, info, eval, generate, plan and bench on a tiny model.
. "$(dirname "$0")/lib.sh"
write_recipe

expect 0 "train" "$weft" train tiny.yaml
has out 'runs/tiny/model.safetensors: step 30'
has err 'validation at step 30'
[ -f runs/tiny/model.safetensors ] && [ -f runs/tiny/state.safetensors ] || fail "no checkpoint"
[ "$(grep -c '"loss"' runs/tiny/log.jsonl)" -eq 30 ] || fail "the log has not 30 steps"
[ "$(grep -c 'valid_loss' runs/tiny/log.jsonl)" -eq 3 ] || fail "the log has not 3 validations"
[ "$(ls -d runs/tiny/checkpoint-* | wc -l)" -eq 1 ] || fail "old checkpoints were left"

expect 2 "training again into the same folder" "$weft" train tiny.yaml
has err '--resume'
expect 0 "--set, -o, --json" "$weft" train tiny.yaml -o other --set train.steps=3 --set model.layers=1 --json --quiet
has out '"step": 3'
has out '"valid_loss"'
[ -s err ] && fail "--quiet printed $(cat err)"
expect 2 "--set without a value" "$weft" train tiny.yaml --set train.steps
has err 'path=value'
expect 2 "a bad entry" "$weft" train tiny.yaml -o bad --set train.lrr=1
has err "lr"
[ -d bad ] && fail "a refused recipe left a folder"
printf 'task: {name: text, path: text.txt}\nmodell: {name: lm}\n' >wrong.yaml
expect 2 "a misspelt section" "$weft" train wrong.yaml
has err "wrong.yaml:2"
has err "model"

expect 0 "info" "$weft" info runs/tiny
has out 'embed.weight'
has out 'width: 32'
expect 0 "info --json" "$weft" info runs/tiny/model.safetensors --json
has out '"recipe"'
expect 0 "eval" "$weft" eval runs/tiny --json
has out '"bits_per_byte"'
expect 0 "eval again" "$weft" eval runs/tiny --batches 2 --batch 8 --json
has out "\"loss\": $(grep valid_loss runs/tiny/log.jsonl | tail -1 | sed 's/.*valid_loss": \([0-9.]\{6\}\).*/\1/')"

expect 0 "generate" "$weft" generate runs/tiny -p 'the ' -n 20 --seed 4
cp out first
has err 'tokens/s'
head -c 4 first | grep -q 'the ' || fail "the prompt is not in the text"
expect 0 "generate again" "$weft" generate runs/tiny -p 'the ' -n 20 --seed 4
same out first
expect 0 "generate with another seed" "$weft" generate runs/tiny -p 'the ' -n 20 --seed 5
cmp -s out first && fail "another seed gave the same text"
expect 0 "generate, greedy, JSON" "$weft" generate runs/tiny -p 'the ' -n 8 -t 0 --json
has out '"new_tokens": 8'
expect 0 "generate with top-k and top-p" "$weft" generate runs/tiny -p 'the ' -n 8 -k 5 --top-p 0.9 --precision bfloat16
expect 2 "generate beyond the learned positions" "$weft" generate runs/tiny -p 'the ' -n 200
expect 2 "generate from nothing" "$weft" generate runs/tiny -p '' -n 5
has err 'empty'

expect 0 "plan" "$weft" plan tiny.yaml
has out 'peak memory'
expect 0 "plan --json" "$weft" plan tiny.yaml --json
parameters=$(sed -n 's/.*"parameters": \([0-9]*\).*/\1/p' out)
counted=$("$weft" info runs/tiny --json | sed -n 's/.*"numbers": \([0-9]*\).*/\1/p')
[ "$parameters" = "$counted" ] || fail "plan says $parameters parameters, the file has $counted"
expect 0 "plan --steps" "$weft" plan tiny.yaml --steps
has out '# update'
expect 0 "bench of a recipe" "$weft" bench tiny.yaml --steps 2 --prompt 8 -n 8 --json
has out '"train_step_seconds"'
has out '"decode_tokens_per_second"'
expect 0 "bench of a model" "$weft" bench runs/tiny --prompt 8 -n 8
has out '^decode'
finish
