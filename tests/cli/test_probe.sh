# test_probe.sh: `weft probe` on a run, a model file and a recipe; as a table and as JSON.
. "$(dirname "$0")/lib.sh"
write_recipe

expect 0 "train" "$weft" train tiny.yaml --quiet --set train.steps=3 --set model.linear=sigma
expect 0 "everything" "$weft" probe runs/tiny
for s in '^variance:' '^gradient:' '^massive:' '^entropy:' '^sigma:' 'after the blocks' 'blocks.1.mixer head 1' 'outside the blocks'; do has out "$s"; done
expect 0 "one measure of a file, as JSON" "$weft" probe runs/tiny/model.safetensors --what entropy --json -b 2
has out '"measure": "entropy"'
has out '"bound row"'
has_not out '"measure": "variance"'
expect 0 "an untrained model" "$weft" probe tiny.yaml --what variance --set model.placement=peri
has out 'blocks.0'
expect 0 "another task's samples" "$weft" probe runs/tiny --what variance --task tiny.yaml --set task.length=16
expect 2 "an unknown measure" "$weft" probe runs/tiny --what entrop
has err "did you mean 'entropy'"
expect 2 "--set without a recipe" "$weft" probe runs/tiny --set model.layers=1
has err 'changes a recipe'
expect 2 "no samples" "$weft" probe runs/tiny --batch 0
expect 2 "a missing file" "$weft" probe nowhere.yaml
has err 'nowhere.yaml'
finish
