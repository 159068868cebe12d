# test_transform.sh: a trained model is folded and converted; the new files load, evaluate, generate; refusals write nothing.
. "$(dirname "$0")/lib.sh"
write_recipe

expect 0 "train" "$weft" train tiny.yaml --set model.norm=batchnorm --set model.dropout=0 -o bn --quiet
expect 0 "fold" "$weft" transform fold bn --pairs 3
has out '^bn/model.safetensors -> bn/model-fold.safetensors'
has out 'blocks.\*.mixer_in_norm: batchnorm into q, k, v (2 times)'
has out 'untied'
has out '^parameters'
has out '^difference  .* of the largest output, on random input (seed 1'
has out '^speed .* x as fast'
has_not out '^kept'
cp bn/model.safetensors before
expect 0 "eval of the model" "$weft" eval bn --batches 2 --json
loss=$(sed -n 's/.*"loss": \([0-9.]\{6\}\).*/\1/p' out)
expect 0 "eval of the folded model" "$weft" eval bn/model-fold.safetensors --batches 2 --json
has out "\"loss\": $loss"
expect 0 "generate from the model" "$weft" generate bn -p 'the ' -n 20 -t 0
cp out text
expect 0 "generate from the folded model" "$weft" generate bn/model-fold.safetensors -p 'the ' -n 20 -t 0
same out text
expect 0 "info" "$weft" info --brief bn/model-fold.safetensors
has out 'transforms: fold'
has out 'blocks.\*.mixer_in_norm: none'
expect 0 "bench" "$weft" bench bn/model-fold.safetensors --prompt 8 -n 4

expect 2 "fold into a file that is there" "$weft" transform fold bn --pairs 0
has err '\-\-overwrite'
expect 2 "fold over the model" "$weft" transform fold bn -o bn/model.safetensors --pairs 0
has err 'is the model itself'
same bn/model.safetensors before
expect 2 "fold of a folded model" "$weft" transform fold bn/model-fold.safetensors --pairs 0
has err 'nothing in this model that can be folded'
[ -e bn/model-fold-fold.safetensors ] && fail "a refusal wrote a file"
expect 0 "keep a tied head" "$weft" transform fold bn -o tied.safetensors --keep-tied --pairs 0 --json
has out '"relative_difference"'
has out 'final_norm: batchnorm becomes affine'
expect 0 "fold over the model, as told" "$weft" transform fold tied.safetensors -o x.safetensors --pairs 0
expect 0 "overwrite" "$weft" transform fold tied.safetensors -o x.safetensors --overwrite --pairs 0

expect 0 "train with layernorm" "$weft" train tiny.yaml -o ln --set model.dropout=0 --quiet
expect 0 "generate" "$weft" generate ln -p 'the ' -n 20 -t 0
cp out text
from='ln'
for to in rmsnorm crmsnorm rmsnorm layernorm; do
    expect 0 "convert to $to" "$weft" transform convert-norm $from --to $to -o next.safetensors --overwrite --pairs 0
    mv next.safetensors ln-$to.safetensors
    from=ln-$to.safetensors
    expect 0 "generate from $to" "$weft" generate $from -p 'the ' -n 20 -t 0
    same out text
    [ $to = crmsnorm ] && { "$weft" info --brief $from >out; has out 'width: 31'; }
done
expect 0 "the chain is recorded" "$weft" info --brief $from
has out 'transforms: convert-norm to rmsnorm, convert-norm to crmsnorm, convert-norm to rmsnorm, convert-norm to layernorm'

expect 0 "train post-norm" "$weft" train tiny.yaml -o post --set model.placement=post --set train.steps=2 --quiet
expect 2 "convert post-norm" "$weft" transform convert-norm post --to rmsnorm
has err 'post-norm network cannot be converted'
expect 2 "fold post-norm" "$weft" transform fold post
has err 'residual stream'
[ "$(ls post/*.safetensors | wc -l)" -eq 2 ] || fail "a refusal left a file"
expect 2 "no such transform" "$weft" transform flod post
has err "did you mean 'fold'"
expect 2 "convert to nothing" "$weft" transform convert-norm post
has err 'needs --to'
expect 2 "convert to an unknown norm" "$weft" transform convert-norm post --to batchnorm
expect 2 "one argument" "$weft" transform fold
expect 2 "no model" "$weft" transform fold nowhere
printf 'garbage' >bad.safetensors
expect 2 "no model file" "$weft" transform fold bad.safetensors
expect 0 "explain" "$weft" explain transform
has out 'convert-norm'
expect 0 "explain parts" "$weft" explain parts
finish
