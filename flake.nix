{
  description = "Berth: an appliance that runs services as containers under systemd";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      each = nixpkgs.lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];
      packages = system: nixpkgs.legacyPackages.${system};
      appliance =
        system:
        nixpkgs.lib.nixosSystem {
          inherit system;
          modules = [ ./image/nixos/appliance.nix ];
        };
    in
    {
      nixosModules.default = ./image/nixos/module.nix;
      nixosConfigurations.appliance = appliance "x86_64-linux";

      packages = each (system: rec {
        berth = (packages system).callPackage ./image/nixos/package.nix { };
        # With a verified store it is made in two passes, and this is what the second one makes.
        image =
          let
            build = (appliance system).config.system.build;
          in
          build.finalImage or build.image;
        default = berth;
      });

      checks = each (system: {
        berth = import ./image/nixos/test.nix {
          pkgs = packages system;
          module = self.nixosModules.default;
        };
      });

      devShells = each (system: {
        default = (packages system).mkShell {
          inputsFrom = [ self.packages.${system}.berth ];
          packages = with (packages system); [
            cargo
            clippy
            just
            rustfmt
          ];
        };
      });
    };
}
