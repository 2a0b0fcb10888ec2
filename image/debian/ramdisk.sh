#!/bin/sh
# The ramdisk, from the tools' programs and the root's modules: ramdisk.sh <tools> <root folder> <output folder>
set -eu
tools=$1 root=$2 out=$3
kernel=$(basename "$(find "$root/usr/lib/modules" -mindepth 1 -maxdepth 1 | head -n 1)")
export SOURCE_DATE_EPOCH=1767225600
# A kernel finds a machine's disk and watchdog by these; the rest comes from /usr.
drivers="virtio_blk virtio_scsi virtio_pci virtio_mmio nvme ahci ata_piix sd_mod sr_mod usb_storage uas xhci_pci ehci_pci mmc_block sdhci_pci
    sdhci_acpi hv_storvsc hv_vmbus xen_blkfront vmw_pvscsi mptspi mpt3sas megaraid_sas
    dm_mod dm_verity dm_crypt erofs xfs vfat nls_cp437 nls_ascii nls_utf8 overlay loop
    i6300esb iTCO_wdt sp5100_tco softdog tpm_crb tpm_tis qemu_fw_cfg usbhid hid_generic atkbd i8042"
modules="systemd systemd-initrd systemd-udevd systemd-journald systemd-modules-load systemd-sysctl systemd-tmpfiles systemd-repart
    systemd-veritysetup systemd-cryptsetup systemd-pcrphase systemd-creds systemd-ask-password dbus dbus-daemon dm crypt kernel-modules fs-lib
    udev-rules base shutdown"
lib=/usr/lib/x86_64-linux-gnu
install="mkfs.xfs xfs_repair blkid head readlink tr cat cp sync mv mkdir rm sed cryptsetup systemd-cryptenroll
    /usr/lib/systemd/systemd-growfs /usr/lib/systemd/systemd-makefs
    /usr/lib/systemd/system-generators/systemd-fstab-generator /usr/lib/systemd/system-generators/systemd-gpt-auto-generator
    /usr/lib/systemd/system-generators/systemd-cryptsetup-generator /usr/lib/systemd/system-generators/systemd-veritysetup-generator
    /usr/lib/systemd/system-generators/systemd-tpm2-generator /usr/lib/systemd/system/tpm2.target
    /usr/lib/systemd/system/systemd-tpm2-setup-early.service /usr/lib/systemd/systemd-tpm2-setup
    $lib/libtss2-esys.so.0 $lib/libtss2-mu.so.0 $lib/libtss2-rc.so.0 $lib/libtss2-sys.so.1 $lib/libtss2-tcti-device.so.0
    $lib/cryptsetup/libcryptsetup-token-systemd-tpm2.so"
words() { echo "$1" | tr -s ' \n' ' '; }
# In a mount namespace of its own, so that whatever ends this leaves nothing mounted.
# shellcheck disable=SC2016 # expanded inside
unshare --mount --propagation private sh -eu -c '
    tools=$1 root=$2 kernel=$3 drivers=$4 modules=$5 install=$6
    mkdir -p "$tools/usr/lib/modules"
    mount --bind "$root/usr/lib/modules" "$tools/usr/lib/modules"
    mount -t proc proc "$tools/proc"
    mount --rbind /dev "$tools/dev"
    mount -t tmpfs tmpfs "$tools/tmp"
    # What it tells of its work is read only when it fails.
    chroot "$tools" dracut --quiet --force --no-hostonly --reproducible --no-early-microcode --zstd --kver "$kernel" \
        --modules "$modules" --drivers "$drivers" --install "$install" \
        /tmp/initrd 2>"$tools/tmp/log" || { cat "$tools/tmp/log" >&2; exit 1; }
    cat "$tools/tmp/initrd"
' ramdisk "$tools" "$root" "$kernel" "$(words "$drivers")" "$(words "$modules")" "$(words "$install")" >"$out/initrd"
