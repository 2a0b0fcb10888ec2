#!/bin/sh
# The lowest layer of a test service, from Debian packages that are unpacked and not installed:
# rootfs.sh <folder of the service> <output.tar>
set -eu
here=$(cd "$1" && pwd)
base=$(cd "$(dirname "$0")" && pwd)/base.sh
out=$2
. "$(dirname "$0")/../debian/mirror.sh"
include=$(sed 's/#.*//' "$here/packages" | tr -s '\n' ' ')
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo --preserve-env=http_proxy,https_proxy,no_proxy"
# shellcheck disable=SC2086 # the mirror may be empty on purpose
$as_root env SOURCE_DATE_EPOCH=1767225600 mmdebstrap --mode=root --variant=extract --format=tar --quiet --skip=output/dev \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
    --include="$include" --extract-hook="here=$here sh $base \"\$1\"" \
    "$suite" "$out" ${mirror:+"$mirror"}
[ -z "$as_root" ] || $as_root chown "$(id -u):$(id -g)" "$out"
