#!/bin/sh
# What every test service has: Debian's users, busybox under all names that nothing else has, no package database; then
# what the service itself asks for, in the finish.sh of its folder `$here`.
set -eu
root=$1
for table in passwd group; do cp "$root/usr/share/base-passwd/$table.master" "$root/etc/$table"; done
for name in $("$root/usr/bin/busybox" --list); do
    [ -e "$root/usr/bin/$name" ] || [ -e "$root/usr/sbin/$name" ] || ln -s busybox "$root/usr/bin/$name"
done
rm -rf "$root/var/lib/dpkg" "$root/var/cache"
[ ! -e "$here/finish.sh" ] || sh "$here/finish.sh" "$root"
