# test_usage.sh: help, versions, unknown words, exit codes.
. "$(dirname "$0")/lib.sh"

verbs="train eval generate compare transform plan info list explain check bench reproduce probe data"

expect 0 "--version" "$weft" --version
has out '^weft [0-9]'
expect 0 "--help" "$weft" --help
for v in $verbs; do has out "^  $v "; done
expect 2 "no verb" "$weft"
has err 'usage'
expect 2 "unknown verb" "$weft" trian x
has err 'did you mean `weft train`'
for v in $verbs; do
    expect 0 "$v --help" "$weft" "$v" --help
    has out "usage: weft $v"
    has out '^examples:'
done
expect 0 "help train" "$weft" help train
has out 'usage: weft train'

for v in train eval generate plan info explain bench probe; do
    expect 2 "$v without its argument" "$weft" "$v"
    has err 'missing'
    expect 2 "$v with an unknown option" "$weft" "$v" x --no-such-thing
    has err 'no option --no-such-thing'
done
expect 2 "a misspelt option" "$weft" train x --resme
has err 'did you mean --resume'
expect 2 "an option without its value" "$weft" train x --output
has err 'needs a value'
expect 2 "a number that is none" "$weft" generate x -n ten
has err "'ten'"
expect 2 "a missing recipe" "$weft" train nowhere.yaml
has err 'nowhere.yaml'
expect 2 "a missing model" "$weft" info nowhere.safetensors
has err 'nowhere.safetensors'

expect 0 "list" "$weft" list
for s in model mixer channel norm position placement topology task optimizer schedule; do has out "^$s:"; done
expect 0 "list mixer" "$weft" list mixer
has out '^  softmax'
expect 2 "list of an unknown slot" "$weft" list mixr
has err "'mixer'"
expect 0 "list --json" "$weft" list --json
has out '"slot": "mixer"'
expect 0 "explain softmax" "$weft" explain softmax
has out 'heads'
expect 0 "explain train" "$weft" explain train
has out 'label_smoothing'
expect 0 "explain --json" "$weft" explain muon --json
has out '"formula"'
expect 2 "explain of an unknown name" "$weft" explain sofmax
has err "'softmax'"
finish
