#!/bin/sh
# What an appliance is set to, beside the files of image/appliance: settings.sh <root folder> <version>
set -eu
root=$1 version=$2
cat >"$root/usr/lib/os-release" <<END
NAME=Berth
PRETTY_NAME="Berth $version"
ID=berth
ID_LIKE=debian
VERSION_ID=$version
IMAGE_ID=berth
IMAGE_VERSION=$version
END
ln -sf ../usr/lib/os-release "$root/etc/os-release"
ln -sf /var/lib/berth/machine/localtime "$root/etc/localtime" # whatever the machine was set to; else UTC
echo berth >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/machine-id"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# The day on which accounts were made is the day of the build.
sed -E -i "s/^([^:]*:[^:]*:)[0-9]+:/\\1$((SOURCE_DATE_EPOCH / 86400)):/" "$root/etc/shadow"
rm -f "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/ssh/ssh_host_* "$root/etc/.pwd.lock" \
    "$root/etc/mtab"
# Nobody logs in over the network unless the owner of the machine says so.
rm -f "$root"/etc/systemd/system/*.wants/ssh.service "$root"/etc/systemd/system/sshd.service "$root"/etc/systemd/system/*.wants/ssh.socket \
    "$root"/etc/systemd/system/*.requires/ssh* "$root"/etc/systemd/system/*.wants/e2scrub* "$root"/etc/systemd/system/*.wants/apt-daily* \
    "$root"/etc/systemd/system/*.wants/dpkg-db-backup*
ln -sf /dev/null "$root/etc/systemd/system/ssh.service"
ln -sf /dev/null "$root/etc/systemd/system/systemd-firstboot.service"
