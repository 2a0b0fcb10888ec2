# Tries a copy in directory $1 that shares its blocks with the original.
set -eu
work=$(mktemp -d "$1/.berth-check.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo data >"$work/original"
cp --reflink=always "$work/original" "$work/copy"
