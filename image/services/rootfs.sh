#!/bin/sh
# The lowest layer of a test service, from Debian packages that are unpacked and not installed:
# rootfs.sh <folder of the service> <output.tar>
set -eu
here=$(cd "$1" && pwd)
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
    --include="$include" --customize-hook="sh $here/finish.sh \"\$1\"" \
    "$suite" "$out" ${mirror:+"$mirror"}
[ -z "$as_root" ] || $as_root chown "$(id -u):$(id -g)" "$out"

# Debian's users. mmdebstrap takes these two files away again after its last hook.
users=$(mktemp -d)
mkdir "$users/etc"
for name in passwd group; do tar -xOf "$out" "./usr/share/base-passwd/$name.master" >"$users/etc/$name"; done
tar --append --file "$out" -C "$users" --mtime=@1767225600 --owner=0 --group=0 --numeric-owner --mode=644 ./etc/passwd ./etc/group
rm -r "$users"
