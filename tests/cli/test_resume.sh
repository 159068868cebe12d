# test_resume.sh: kill -9 at random moments, many inside a checkpoint; the resumed run ends with the bytes of one never stopped.
. "$(dirname "$0")/lib.sh"
write_recipe
sed -i 's/steps: 30/steps: 500/' tiny.yaml
often="--set train.checkpoint_minutes=0.00001" # a checkpoint after every step

expect 0 "a run never stopped" "$weft" train tiny.yaml -o whole $often
started=no kills=0 tries=0 inside=0
# a pseudo-random delay between 10 and 150 ms
delay() { awk -v n="$1" 'BEGIN { srand(n); printf "%.3f", 0.01 + 0.14 * rand() }'; }
while [ "$tries" -lt 60 ]; do
    tries=$((tries + 1))
    resume=
    [ -e stopped/latest ] && resume=--resume
    "$weft" train tiny.yaml -o stopped $often $resume --quiet >out 2>err &
    pid=$!
    sleep "$(delay "$tries")"
    kill -9 "$pid" 2>/dev/null && kills=$((kills + 1))
    wait "$pid" 2>/dev/null
    code=$?
    [ "$code" -eq 0 ] && break
    [ "$code" -eq 137 ] || { fail "killed run $tries ended with $code: $(tail -2 err)"; break; }
    # whatever the kill cut, the checkpoint that `latest` names can be read
    if [ -e stopped/latest ]; then
        "$weft" info stopped --brief >/dev/null 2>err || fail "after kill $tries: $(cat err)"
        started=yes
        [ "$(ls -d stopped/checkpoint-* | wc -l)" -eq 1 ] || inside=$((inside + 1))
    fi
done
[ "$started" = yes ] || fail "no run got as far as a checkpoint"
[ "$kills" -ge 3 ] || fail "only $kills kills hit a running process"
echo "$kills kills, $inside of them while a checkpoint was being written"
expect 0 "the last run" "$weft" train tiny.yaml -o stopped $often --resume --quiet
same whole/model.safetensors stopped/model.safetensors
same whole/state.safetensors stopped/state.safetensors
sed 's/, "seconds".*//' whole/log.jsonl | grep '"loss"' >a
sed 's/, "seconds".*//' stopped/log.jsonl | grep '"loss"' >b
same a b
[ "$(ls -d stopped/checkpoint-* | wc -l)" -eq 1 ] || fail "killed writers' folders were left: $(ls stopped)"

expect 2 "resume with another learning rate" "$weft" train tiny.yaml -o whole --resume --set train.lr=0.5
has err 'train.lr was 0.01'
expect 2 "resume of nothing" "$weft" train tiny.yaml -o nothing --resume
has err 'no checkpoint'
expect 0 "more steps" "$weft" train tiny.yaml -o whole --resume --set train.steps=505 --quiet
has out 'step 505'
echo x >>text.txt
expect 2 "resume on other data" "$weft" train tiny.yaml -o stopped --resume
has err 'fingerprint'
finish
