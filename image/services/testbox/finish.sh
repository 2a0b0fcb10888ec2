#!/bin/sh
# busybox under all its names.
set -eu
root=$1
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
for name in $("$root/usr/bin/busybox" --list); do [ -e "$root/usr/bin/$name" ] || ln -s busybox "$root/usr/bin/$name"; done
rm -rf "$root/var/lib/dpkg" "$root/var/cache"
