#!/bin/sh
# The image of a version:
#   assemble.sh <tools> <appliance> <berth.deb> <starter's OCI layout> <key of releases> <version>
#       <folder of changes, may be missing> <output folder>
# Makes berth_<version>.raw and what an update of it is made of. The same inputs give the same bytes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
image=$(dirname "$here")
tools=$1 appliance=$2 deb=$3 starter=$4 key=$5 version=$6 changes=$7
out=$(cd "$8" && pwd)
export SOURCE_DATE_EPOCH=1767225600
umask 022

work=$out/work
rm -rf "$work"
mkdir -p "$work/defs" "$work/stage" "$work/esp/EFI/BOOT" "$work/esp/EFI/systemd" "$work/esp/EFI/Linux" "$work/esp/loader"
stage=$work/stage
cp -a "$appliance/root/." "$stage/"
dpkg-deb -x "$deb" "$stage"
cp -r "$image/appliance/etc/." "$stage/etc/"
mkdir -p "$stage/usr/lib/repart.d" "$stage/usr/lib/sysupdate.d" "$stage/usr/share/berth/starter"
cp "$image"/repart.d/*.conf "$stage/usr/lib/repart.d/"
cp "$image"/sysupdate.d/*.transfer "$stage/usr/lib/sysupdate.d/"
# What an installation on another disk needs: the ramdisk's own ways are used again.
mkdir -p "$stage/usr/lib/systemd/system-generators" "$stage/usr/lib/berth/install"
cp "$image"/system/* "$stage/usr/lib/systemd/system/"
cp "$image/initrd/usr/lib/systemd/system-generators/berth-mode" "$stage/usr/lib/systemd/system-generators/"
cp "$image/initrd/usr/lib/berth/data" "$image/initrd/usr/lib/berth/booted-disk" "$stage/usr/lib/berth/"
cp "$image"/initrd/usr/lib/udev/rules.d/*.rules "$stage/usr/lib/udev/rules.d/"
for one in "$image"/repart.d/*.conf; do
    more=$image/repart.install/$(basename "$one")
    if [ -f "$more" ]; then cat "$one" "$more"; else cat "$one"; fi >"$stage/usr/lib/berth/install/$(basename "$one")"
done
cp "$appliance/packages" "$stage/usr/share/berth/packages"
mkdir -p "$stage/usr/share/berth/release-keys"
cp "$key" "$stage/usr/share/berth/release-keys/release.pub"
cp "$image/starter/bundle.yaml" "$stage/usr/share/berth/starter/"
tar --create --file "$stage/usr/share/berth/starter/image.tar" --directory "$starter" --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
    --owner=0 --group=0 --numeric-owner .
sh "$here/settings.sh" "$stage" "$version"
for one in 10-esp 20-usr-a 21-usr-a-verity; do
    cat "$image/repart.d/$one.conf" "$image/repart.build/$one.conf" >"$work/defs/$one.conf"
done
cp -r "$image/initrd" "$work/initrd"
cp "$image/cmdline" "$work/cmdline"
if [ -d "$changes" ]; then
    [ ! -d "$changes/tree" ] || cp -a "$changes/tree/." "$stage/"
    [ ! -d "$changes/initrd" ] || cp -a "$changes/initrd/." "$work/initrd/"
    [ ! -f "$changes/cmdline" ] || cat "$changes/cmdline" >>"$work/cmdline"
fi
cp "$appliance/vmlinuz" "$work/vmlinuz"
cp "$appliance/initrd" "$work/ramdisk"
printf 'timeout 0\neditor no\n' >"$work/esp/loader/loader.conf"
find "$work/stage" "$work/initrd" "$work/esp" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# In a mount namespace of its own, so that whatever ends this leaves nothing mounted.
cp "$here/inside.sh" "$work/inside.sh"
# shellcheck disable=SC2016 # expanded inside
unshare --mount --propagation private sh -eu -c '
    tools=$1 work=$2 version=$3
    mount -t proc proc "$tools/proc"
    mount --rbind /dev "$tools/dev"
    mount --bind "$work" "$tools/mnt"
    mount -t tmpfs tmpfs "$tools/tmp"
    chroot "$tools" sh /mnt/inside.sh "$version"
' assemble "$tools" "$work" "$version"
mv "$work"/result/* "$out/"
rm -rf "$work"
