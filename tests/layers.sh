#!/bin/sh
# layers.sh: a file may include only its own room and rooms above it in this list (docs/architecture.md).
# Run in the project's root; prints every include that points the wrong way and ends with 1 if there is one.
set -eu
rooms="base graph op file part model data learn sample transform parallel compare check serve lab api cli"

# shellcheck disable=SC2016 # the $ are those of awk
find src include -name '*.[ch]' -o -name '*.inc' | LC_ALL=C sort | xargs awk -v rooms="$rooms" '
BEGIN {
    n = split(rooms, name, " ")
    for (i = 1; i <= n; i++) rank[name[i]] = i
}
FNR == 1 {
    split(FILENAME, part, "/")
    room = part[1] == "src" ? part[2] : "include"
    if (room != "include" && !(room in rank)) complain("the room " room " is not in the list")
    files++
}
function complain(why) {
    printf "%s:%d: %s\n", FILENAME, FNR, why
    bad++
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    if (split(quoted[2], part, "/") < 2) next
    to = part[1]
    if (to == "..") complain("include by the path from src/, not ../")
    else if (room == "include") complain("the public header includes " quoted[2])
    else if (to in rank && rank[to] > rank[room]) complain(room " may not include " quoted[2] ": " to " stands below it")
}
END {
    printf "layers: %d files, %d wrong includes\n", files, bad
    exit bad > 0
}'
