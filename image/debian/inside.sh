#!/bin/sh
# Part of assemble.sh, among the tools, with its work in /mnt: inside.sh <version>
# Two passes: the first makes /usr and its hashes, whose root goes into the kernel's command line; the second adds that.
set -eu
version=$1
cd /mnt
mkdir -p result
# What the tools tell of their work is read only when it fails.
exec 3>&2 2>work.log
trap 'code=$?; [ $code = 0 ] || cat work.log >&3; exit $code' EXIT
for unit in berth-setup.service berthd.service berth-dns.service berth-starter.service berth-health.service berth-first.service berth-keyboard.service berth-ssh.service systemd-networkd.service systemd-resolved.service systemd-timesyncd.service; do
    systemctl --root=/mnt/stage --quiet enable "$unit"
done
# What the machine is set to is a part of the version.
rm -rf stage/usr/share/factory
mkdir -p stage/usr/share/factory
cp -a stage/etc stage/usr/share/factory/etc
find stage/usr/share/factory stage/usr -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
(cd initrd && find . | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=0:0 --reproducible >../own)

seed=4c1f3ba4-9b0e-4d0c-8a0e-3b8f5a1c77de
partition() {
    systemd-repart --offline=yes --dry-run=no --seed=$seed --architecture=x86-64 --definitions=/mnt/defs --root=/mnt/stage \
        --json=pretty "$@" /mnt/result/disk.raw
}
partition --empty=create --size=auto --defer-partitions=esp >first.json
usrhash=$(sed -n 's/.*"roothash" : "\([0-9a-f]*\)".*/\1/p' first.json | head -n 1)
[ -n "$usrhash" ] || { echo "systemd-repart told no root hash" >&2 && cat first.json >&2 && exit 1; }

# The ramdisk begins with whether this start is one of an appliance or of an installation.
begin=rd.systemd.unit=berth-begin.target
kernel=$(basename "$(find stage/usr/lib/modules -mindepth 1 -maxdepth 1)")
ukify build --linux=vmlinuz --initrd=ramdisk --initrd=own --os-release=@stage/usr/lib/os-release --uname="$kernel" \
    --stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub --output="esp/EFI/Linux/berth_$version.efi" \
    --cmdline="usrhash=$usrhash root=tmpfs mount.usrfstype=erofs mount.usrflags=ro $begin $(sed 's/#.*//' cmdline | tr -s '\n' ' ')" >/dev/null
cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi esp/EFI/systemd/
cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi esp/EFI/BOOT/BOOTX64.EFI
find esp -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
rm -rf stage/esp && cp -a esp stage/esp
partition --empty=allow --split=yes >second.json
cp "esp/EFI/Linux/berth_$version.efi" result/
for kind in usr verity; do
    part=$(find result -name "disk.*.$kind.raw")
    uuid=$(basename "$part" | sed "s/^disk\.\(.*\)\.$kind\.raw$/\1/")
    mv "$part" "result/berth_${version}_$uuid.$kind.raw"
done
mv result/disk.raw "result/berth_$version.raw"
