# The appliance: /usr verified and read-only, the root in memory, all that lasts on an encrypted partition. The same
# partitions, ramdisk units and updates as the Debian one has; see supervisor/decisions/image.md.
{
  config,
  lib,
  modulesPath,
  options,
  pkgs,
  ...
}:

let
  read = import ./read.nix;
  version = (builtins.fromTOML (builtins.readFile ../../Cargo.toml)).workspace.package.version;

  # At the build there is no image whose version `%A` could be.
  partition =
    name:
    let
      shared = (read.ini (../repart.d + "/${name}.conf")).Partition;
    in
    shared
    // lib.optionalAttrs (shared ? Label) { Label = builtins.replaceStrings [ "%A" ] [ version ] shared.Label; };

  ramdisk = ../initrd/etc/systemd/system;
  unit =
    name:
    let
      file = read.ini (ramdisk + "/${name}.service");
    in
    {
      unitConfig = file.Unit;
      serviceConfig = file.Service;
    };
  program = name: { source = ../initrd/usr/lib/berth + "/${name}"; };
  bootLoader = "${pkgs.systemd}/lib/systemd/boot/efi/systemd-boot${pkgs.stdenv.hostPlatform.efiArch}.efi";
in
{
  imports = [
    ./module.nix
    "${modulesPath}/image/repart.nix"
    "${modulesPath}/profiles/image-based-appliance.nix"
    "${modulesPath}/profiles/perlless.nix"
  ];

  services.berth.enable = true;
  networking.hostName = "berth";
  system.image.id = "berth";
  system.image.version = version;
  system.stateVersion = "26.05";

  # The disk.
  boot.loader.grub.enable = false;
  boot.loader.systemd-boot.enable = false;
  boot.uki.name = "berth";
  image.repart =
    {
      name = "berth";
      split = true;
      seed = "4c1f3ba4-9b0e-4d0c-8a0e-3b8f5a1c77de";
      # Checksummed erofs with smaller blocks is not recognised, and the ramdisk waits for it for ever.
      mkfsOptions.erofs = [ "-b 4096" ];
      verityStore.enable = true;
      verityStore.partitionIds = {
        esp = "10-esp";
        store = "20-usr-a";
        store-verity = "21-usr-a-verity";
      };
      partitions = {
        "10-esp" = {
          repartConfig = partition "10-esp" // { SplitName = "-"; };
          contents = {
            "/EFI/BOOT/BOOT${lib.toUpper pkgs.stdenv.hostPlatform.efiArch}.EFI".source = bootLoader;
            "/loader/loader.conf".source = pkgs.writeText "loader.conf" "timeout 0\neditor no\n";
          };
        };
        "20-usr-a".repartConfig = partition "20-usr-a" // { SplitName = "%U.usr"; };
        "21-usr-a-verity".repartConfig = partition "21-usr-a-verity" // { SplitName = "%U.verity"; };
      };
    }
    # Newer releases want to be told.
    // lib.optionalAttrs (options.image.repart ? enable) { enable = true; };

  fileSystems = {
    "/" = {
      fsType = "tmpfs";
      options = [ "mode=0755" ];
    };
    "/nix/store" = lib.mkDefault {
      device = "/usr/nix/store";
      options = [ "bind" ];
      neededForBoot = true;
    };
    "/var" = {
      device = "/dev/mapper/data";
      fsType = "xfs";
      options = [
        "x-systemd.growfs"
        "x-systemd.requires=berth-data.service"
        "x-systemd.after=berth-data.service"
        "noatime"
      ];
      neededForBoot = true;
    };
  };

  # The ramdisk makes the data partition, gives the machine its id and starts anew when it cannot go on.
  boot.kernelParams = read.lines ../cmdline;
  boot.initrd.supportedFilesystems.xfs = true;
  boot.initrd.kernelModules = read.lines ../initrd/etc/modules-load.d/berth-watchdog.conf;
  boot.initrd.luks.devices.data = {
    device = "/dev/disk/by-partlabel/berth-data";
    crypttabExtraOpts = [
      "tpm2-device=auto"
      "discard"
      "noauto"
      "x-initrd.attach"
    ];
  };
  boot.initrd.systemd = {
    enable = true;
    repart.enable = true;
    services = {
      emergency = unit "emergency";
      berth-deadline = unit "berth-deadline" // { wantedBy = [ "sysinit.target" ]; };
      berth-machine-id = unit "berth-machine-id" // { wantedBy = [ "sysroot-var.mount" ]; };
      berth-data = unit "berth-data" // { requiredBy = [ "systemd-cryptsetup@data.service" ]; };
    };
    contents."/usr/lib/berth/data" = program "data";
    contents."/usr/lib/berth/machine-id" = program "machine-id";
    extraBin = {
      blkid = "${pkgs.util-linux}/bin/blkid";
      cryptsetup = "${pkgs.cryptsetup}/bin/cryptsetup";
      head = "${pkgs.coreutils}/bin/head";
      "mkfs.xfs" = "${pkgs.xfsprogs}/bin/mkfs.xfs";
      systemd-cryptenroll = "${pkgs.systemd}/bin/systemd-cryptenroll";
      tr = "${pkgs.coreutils}/bin/tr";
    };
  };
  systemd.repart.partitions = lib.mapAttrs (_: file: file.Partition) (read.folder "conf" ../repart.d);

  # Settings belong to the version; the id is bound over this file.
  system.etc.overlay.enable = true;
  system.etc.overlay.mutable = false;
  services.userborn.enable = true;
  environment.etc =
    {
      "machine-id".text = "";
      "systemd/network/80-wired.network".source = ../appliance/etc/systemd/network/80-wired.network;
      "issue".source = lib.mkForce ../appliance/etc/issue;
    }
    // lib.mapAttrs' (
      name: _: lib.nameValuePair "sysupdate.d/${name}" { source = ../sysupdate.d + "/${name}"; }
    ) (builtins.readDir ../sysupdate.d);
  networking.useNetworkd = true;
  services.resolved.enable = true;
  services.resolved.settings.Resolve = (read.ini ../appliance/etc/systemd/resolved.conf.d/50-berth.conf).Resolve;

  # The machine decides when it is updated.
  systemd.sysupdate.enable = true;
  systemd.timers.systemd-sysupdate.enable = false;
}
