#!/bin/sh
# Builds the test guest: guest.sh <output folder> <package list>...
# Makes vmlinuz, initrd and root.img (ext4) there, with no loop device and no mount.
# The mirror is BERTH_DEBIAN_MIRROR, or the one this machine's apt uses if it is a Debian, or mmdebstrap's own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
shift
suite=trixie
mirror=${BERTH_DEBIAN_MIRROR:-}
if [ -z "$mirror" ] && [ "$(. /etc/os-release && echo "$ID")" = debian ]; then
    mirror=$(apt-get indextargets --format '$(SITE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | awk '$2 == "main" { print $1; exit }')
fi
include=$(cat "$@" | sed 's/#.*//' | tr -s '\n' ' ' | tr -d '\t')
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo --preserve-env=http_proxy,https_proxy,no_proxy"
export INITRD=No
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
