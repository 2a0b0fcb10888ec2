# The options of nixpkgs that our modules use, with the kind of their values, as found in its source; see
# supervisor/decisions/nixos.md for what was looked up and what was not.
{
  upstream = {
    "/upstream/image/repart.nix" = { };
    "/upstream/profiles/image-based-appliance.nix" = { };
    "/upstream/profiles/perlless.nix" = { };
  };

  packages = [
    "coreutils"
    "cryptsetup"
    "systemd"
    "util-linux"
    "xfsprogs"
  ];

  options = {
    "boot.initrd.kernelModules" = "list";
    "boot.initrd.luks.devices.<name>.crypttabExtraOpts" = "list";
    "boot.initrd.luks.devices.<name>.device" = "text";
    "boot.initrd.supportedFilesystems" = "any";
    "boot.initrd.systemd.contents.<path>.source" = "text";
    "boot.initrd.systemd.enable" = "bool";
    "boot.initrd.systemd.extraBin" = "set";
    "boot.initrd.systemd.repart.enable" = "bool";
    "boot.initrd.systemd.services.<name>.requiredBy" = "list";
    "boot.initrd.systemd.services.<name>.serviceConfig" = "set";
    "boot.initrd.systemd.services.<name>.unitConfig" = "set";
    "boot.initrd.systemd.services.<name>.wantedBy" = "list";
    "boot.kernelModules" = "list";
    "boot.kernelParams" = "list";
    "boot.loader.grub.enable" = "bool";
    "boot.loader.systemd-boot.enable" = "bool";
    "boot.uki.name" = "text";
    "environment.etc.<name>.source" = "text";
    "environment.etc.<name>.text" = "text";
    "environment.systemPackages" = "list";
    "fileSystems.<path>.device" = "text";
    "fileSystems.<path>.fsType" = "text";
    "fileSystems.<path>.neededForBoot" = "bool";
    "fileSystems.<path>.options" = "list";
    "image.repart.mkfsOptions" = "set";
    "image.repart.name" = "text";
    "image.repart.partitions.<name>.contents.<path>.source" = "text";
    "image.repart.partitions.<name>.repartConfig" = "set";
    "image.repart.seed" = "text";
    "image.repart.split" = "bool";
    "image.repart.verityStore.enable" = "bool";
    "image.repart.verityStore.partitionIds" = "set";
    "networking.firewall.allowedTCPPorts" = "list";
    "networking.firewall.allowedUDPPorts" = "list";
    "networking.hostName" = "text";
    "networking.nftables.enable" = "bool";
    "networking.useNetworkd" = "bool";
    "services.resolved.enable" = "bool";
    "services.resolved.settings.Resolve" = "set";
    "services.userborn.enable" = "bool";
    "system.etc.overlay.enable" = "bool";
    "system.etc.overlay.mutable" = "bool";
    "system.image.id" = "text";
    "system.image.version" = "text";
    "system.stateVersion" = "text";
    "systemd.packages" = "list";
    "systemd.repart.partitions" = "set";
    "systemd.services.<name>.wantedBy" = "list";
    "systemd.sysupdate.enable" = "bool";
    "systemd.timers.<name>.enable" = "bool";
    "systemd.tmpfiles.packages" = "list";
  };
}
