#!/bin/sh
# Takes out of a Debian what an appliance never runs: slim.sh <root folder>
set -eu
root=$1
kernel=$(basename "$(find "$root/usr/lib/modules" -mindepth 1 -maxdepth 1 | head -n 1)")
mv "$root/boot/vmlinuz-$kernel" "$root/../vmlinuz"
modules=$root/usr/lib/modules/$kernel
drivers=$modules/kernel/drivers
# No screens, sound, radio or sensors; no network but Ethernet; no filesystem of another age.
for one in sound net/bluetooth net/mac80211 net/wireless net/nfc net/can net/6lowpan net/ieee802154 net/mac802154 net/batman-adv \
    net/rxrpc net/sctp net/tipc net/dccp net/rds net/smc net/9p net/ceph net/sunrpc net/atm net/ax25 net/netrom net/rose net/x25 net/lapb \
    net/appletalk net/phonet net/openvswitch net/mptcp \
    fs/afs fs/ceph fs/nfs fs/nfsd fs/lockd fs/smb fs/ocfs2 fs/gfs2 fs/dlm fs/btrfs fs/f2fs fs/jfs fs/reiserfs fs/hfs fs/hfsplus fs/ufs fs/ubifs \
    fs/jffs2 fs/nilfs2 fs/affs fs/befs fs/bfs fs/efs fs/minix fs/omfs fs/orangefs fs/qnx4 fs/qnx6 fs/romfs fs/sysv fs/udf fs/ecryptfs fs/coda \
    fs/freevxfs fs/hpfs fs/adfs fs/9p fs/bcachefs fs/zonefs fs/ntfs3 fs/exfat; do
    rm -rf "$modules/kernel/$one"
done
for one in gpu media sound bluetooth iio infiniband staging isdn atm firewire parport pcmcia mtd misc/mei input/joystick input/touchscreen \
    input/tablet net/wireless net/wwan net/can net/ieee802154 net/hamradio net/fddi net/arcnet net/wan net/slip net/ppp net/plip net/thunderbolt \
    usb/gadget usb/image usb/misc usb/serial video comedi leds extcon platform/surface platform/chrome w1 memstick ssb bcma power soundwire \
    hid/intel-ish-hid hid/amd-sfh-hid hid/surface-hid greybus gnss uwb ntb rapidio target counter most accel; do
    rm -rf "${drivers:?}/$one"
done
chroot "$root" depmod "$kernel"

# Packages are not managed here, and what they were managed with is not needed.
cd "$root/usr"
rm -rf lib/python3* share/python3* bin/python3* bin/py3* share/perl* lib/x86_64-linux-gnu/perl* bin/perl* \
    bin/apt* bin/dpkg* lib/apt lib/dpkg share/dpkg sbin/dpkg* lib/x86_64-linux-gnu/libapt* share/debconf share/lintian \
    sbin/xfs_scrub* lib/x86_64-linux-gnu/libicu* lib/x86_64-linux-gnu/gconv lib/udev/hwdb.d share/bash-completion share/zsh share/bug \
    share/doc share/man share/info share/locale share/i18n share/menu share/pixmaps share/gcc share/keyrings share/common-licenses \
    share/perl5 share/base-files share/initramfs-tools sbin/update-* bin/gpgv bin/sqv
cd ..
rm -rf var/lib/apt var/lib/dpkg var/cache var/log boot/* etc/apt etc/dpkg etc/kernel etc/initramfs-tools etc/cron.daily etc/logrotate.d
