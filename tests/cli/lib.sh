# lib.sh: what the tests of the tool share. A test is `sh test_x.sh PATH-OF-WEFT`; it works in a folder of its own.
set -u
weft=$1
case $weft in /*) ;; *) weft=$PWD/$weft ;; esac
[ -x "$weft" ] || { echo "$weft: no such tool" >&2; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}

# expect CODE WHAT COMMAND...: the command's exit code; its output goes to out and err.
expect() {
    want=$1 what=$2
    shift 2
    "$@" >out 2>err
    got=$?
    [ "$got" -eq "$want" ] || fail "$what: exit code $got, not $want: $(tail -3 err)"
}

# has FILE TEXT: the file contains the text.
has() {
    grep -q -e "$2" "$1" || fail "'$2' is not in $1: $(head -c 600 "$1")"
}

has_not() {
    ! grep -q -e "$2" "$1" || fail "'$2' is in $1"
}

same() {
    cmp -s "$1" "$2" || fail "$1 and $2 differ"
}

# A text of some 20 kB and a recipe that trains a tiny model on it.
write_recipe() {
    awk 'BEGIN { for (i = 0; i < 700; i++) printf "the %d cats sit on %d mats\n", i * 7 % 10, i * 3 % 10 }' >text.txt
    cat >tiny.yaml <<'YAML'
task: {name: text, path: text.txt, length: 32}
model: {name: lm, layers: 2, width: 32, mixer: {name: softmax, heads: 2}, dropout: 0.1}
train: {steps: 30, batch: 8, lr: 0.01, valid_every: 10, valid_batches: 2, ema: 0.9}
YAML
}

finish() {
    [ "$failures" -eq 0 ] && exit 0
    echo "$failures failures" >&2
    exit 1
}
