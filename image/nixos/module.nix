# Berth on a NixOS machine: what the Debian package does when it is installed.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.berth;
  read = import ./read.nix;

  # NixOS takes unit files from packages and passes over their [Install].
  wanted =
    ending:
    lib.mapAttrs (_: unit: { wantedBy = read.words unit.Install.WantedBy; }) (
      lib.filterAttrs (_: unit: unit ? Install) (read.folder ending ../../units/system)
    );
in
{
  options.services.berth = {
    enable = lib.mkEnableOption "Berth, which runs services as containers under systemd";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The programs and units that are used.";
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether the API (TCP 6443) and the machine's name on the link (UDP 5353) are reached from other machines.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    systemd.packages = [ cfg.package ];
    systemd.tmpfiles.packages = [ cfg.package ];
    systemd.services = wanted "service";

    boot.kernelModules = read.lines ../../units/modules-load.d/berth.conf;
    environment.etc."sysctl.d/50-berth.conf".source = ../../units/sysctl.d/50-berth.conf;
    networking.nftables.enable = lib.mkDefault true;
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ 6443 ];
    networking.firewall.allowedUDPPorts = lib.mkIf cfg.openFirewall [ 5353 ];
  };
}
