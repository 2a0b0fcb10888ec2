#!/bin/sh
# The tools that make an image, in a Debian of the image's own release: tools.sh <output folder>
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
. "$here/mirror.sh"
include=$(sed 's/#.*//' "$here/tools.packages" | tr -s '\n' ' ')
# shellcheck disable=SC2086 # the mirror may be empty on purpose
env INITRD=No mmdebstrap --mode=root --variant=apt --format=directory --quiet \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$include" "$suite" "$out/root" ${mirror:+"$mirror"}
