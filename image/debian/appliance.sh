#!/bin/sh
# What changes only with Debian: appliance.sh <tools> <output folder>
# Makes root/ (the tree that becomes /usr and the settings), vmlinuz, initrd and packages (name, version, architecture) there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
. "$here/mirror.sh"
include=$(sed 's/#.*//' "$here/../appliance/packages" | tr -s '\n' ' ')
# shellcheck disable=SC2086 # the mirror may be empty on purpose
env INITRD=No mmdebstrap --mode=root --variant=minbase --format=directory --quiet \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --include="$include" "$suite" "$out/root" ${mirror:+"$mirror"}
dpkg-query --admindir="$out/root/var/lib/dpkg" --show --showformat '${Package}\t${Version}\t${Architecture}\n' >"$out/packages"
sh "$here/slim.sh" "$out/root"
sh "$here/ramdisk.sh" "$tools" "$out/root" "$out"
