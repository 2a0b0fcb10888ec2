#!/bin/sh
# Builds the test guest: guest.sh <output folder> <package list>...
# Makes vmlinuz, initrd and root.img (ext4) there, with no loop device and no mount.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
shift
. "$here/mirror.sh"
include=$(cat "$@" | sed 's/#.*//' | tr -s '\n' ' ' | tr -d '\t')
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo --preserve-env=http_proxy,https_proxy,no_proxy"
# shellcheck disable=SC2086 # the mirror may be empty on purpose
$as_root env INITRD=No mmdebstrap --mode=root --variant=minbase --format=null --quiet \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --include="$include" \
    --customize-hook="copy-in $here/guest/etc /" \
    --customize-hook="sh $here/guest-finish.sh \"\$1\" $here/guest/init $out" \
    "$suite" /dev/null ${mirror:+"$mirror"}
[ -z "$as_root" ] || $as_root chown "$(id -u):$(id -g)" "$out/root.img" "$out/vmlinuz" "$out/initrd"
