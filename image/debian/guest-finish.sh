#!/bin/sh
# mmdebstrap's last hook: guest-finish.sh <root folder> <init of the ramdisk> <output folder>
set -eu
root=$1 init=$2 out=$3
in_root() { chroot "$root" "$@"; }

# The ramdisk: busybox, one driver, one script.
kernel=$(basename "$(find "$root/usr/lib/modules" -mindepth 1 -maxdepth 1 | head -n 1)")
ramdisk=$root/ramdisk
mkdir -p "$ramdisk/bin" "$ramdisk/dev" "$ramdisk/proc" "$ramdisk/root"
cp "$root/usr/bin/busybox" "$ramdisk/bin/busybox"
in_root busybox xz -dc "/usr/lib/modules/$kernel/kernel/drivers/block/virtio_blk.ko.xz" >"$ramdisk/virtio_blk.ko"
install -m 755 "$init" "$ramdisk/init"
mknod "$ramdisk/dev/console" c 5 1
in_root busybox sh -c 'cd /ramdisk && find . | busybox cpio -o -H newc' >"$out/initrd"
cp "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
rm -rf "$ramdisk" "$root"/boot/*

# Root logs in on the console, and nothing runs that only a long-lived machine needs.
in_root passwd --delete root >/dev/null
in_root systemctl enable --quiet systemd-networkd.service berth-agent.service
in_root systemctl disable --quiet docker-registry.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-pstore.service 2>/dev/null || true
in_root systemctl mask --quiet systemd-networkd-wait-online.service systemd-firstboot.service
mkdir -p "$root/var/lib/berth" "$root/var/log/journal"
echo berth-test >"$root/etc/hostname"
printf '127.0.0.1 localhost berth-test\n::1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/machine-id"
rm -f "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id" "$root"/var/cache/apt/*.bin
rm -rf "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/locale
touch "$root/etc/.updated" "$root/var/.updated"

# A plain bind shows the folder without the /proc, /sys and /dev that are mounted in it.
# What keeps services from starting while packages are installed is put aside: mmdebstrap removes it after this hook.
aside=$(mktemp -d)
mv "$root/usr/sbin/policy-rc.d" "$aside/"
if [ -e "$root/usr/sbin/start-stop-daemon.REAL" ]; then
    mv "$root/usr/sbin/start-stop-daemon" "$aside/"
    mv "$root/usr/sbin/start-stop-daemon.REAL" "$root/usr/sbin/start-stop-daemon"
fi
plain=$(mktemp -d)
mount --bind "$root" "$plain"
rm -f "$out/root.img"
truncate -s 4G "$out/root.img"
uuid=6f7b7a3e-0c2a-4c56-9d9f-3d5a0b6a1c11
mke2fs -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1,hash_seed=$uuid -U $uuid -L root -d "$plain" "$out/root.img"
umount "$plain"
rmdir "$plain"
if [ -e "$aside/start-stop-daemon" ]; then
    mv "$root/usr/sbin/start-stop-daemon" "$root/usr/sbin/start-stop-daemon.REAL"
    mv "$aside/start-stop-daemon" "$root/usr/sbin/"
fi
mv "$aside/policy-rc.d" "$root/usr/sbin/"
rmdir "$aside"
