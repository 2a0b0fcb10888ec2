# The programs, and the files that systemd reads with their paths in the store.
{
  lib,
  rustPlatform,
  cryptsetup,
  e2fsprogs,
  kmod,
  libseccomp,
  nftables,
  openssl,
  pkg-config,
  systemd,
  clang,
  libclang,
}:

rustPlatform.buildRustPackage {
  pname = "berth";
  version = (builtins.fromTOML (builtins.readFile ../../Cargo.toml)).workspace.package.version;

  src = lib.fileset.toSource {
    root = ../..;
    fileset = lib.fileset.unions [
      ../../Cargo.toml
      ../../Cargo.lock
      ../../LICENSE
      ../../README.md
      ../../clippy.toml
      ../../installer
      ../../supervisor
      ../../tests
      ../../units
    ];
  };
  cargoLock.lockFile = ../../Cargo.lock;
  cargoBuildFlags = [
    "--package=berth"
    "--package=berthd"
    "--package=berth-run"
    "--package=berth-dns"
    "--package=berth-installer"
  ];
  # The suites want a booted machine, a registry and root.
  doCheck = false;

  nativeBuildInputs = [
    pkg-config
    clang
  ];
  buildInputs = [
    cryptsetup
    libseccomp
    openssl
  ];
  LIBCLANG_PATH = "${libclang.lib}/lib";

  # Berth calls other programs by their whole names.
  postPatch = ''
    substituteInPlace supervisor/host/src/ext4.rs \
      --replace-fail /usr/sbin/mke2fs ${e2fsprogs}/bin/mke2fs \
      --replace-fail /usr/sbin/e2fsck ${e2fsprogs}/bin/e2fsck
    substituteInPlace supervisor/host/src/nft.rs --replace-fail /usr/sbin/nft ${nftables}/bin/nft
    substituteInPlace supervisor/host/src/journal.rs --replace-fail /usr/bin/journalctl ${systemd}/bin/journalctl
    substituteInPlace supervisor/daemon/src/secret/vault.rs --replace-fail /usr/bin/systemd-creds ${systemd}/bin/systemd-creds
    substituteInPlace supervisor/client/src/cli/local.rs \
      --replace-fail /usr/bin/systemctl ${systemd}/bin/systemctl \
      --replace-fail /usr/bin/journalctl ${systemd}/bin/journalctl
    substituteInPlace installer/src/facts.rs \
      --replace-fail /usr/bin/systemctl ${systemd}/bin/systemctl \
      --replace-fail /usr/sbin/modprobe ${kmod}/bin/modprobe
    substituteInPlace supervisor/daemon/src/daemon/properties.rs --replace-fail /usr/lib/berth $out/lib/berth
  '';

  # As image/debian/package.sh lays them out.
  postInstall = ''
    mkdir -p $out/lib/berth $out/lib/systemd $out/share/doc/berth
    for program in berthd berth-run berth-dns berth-installer; do
      mv $out/bin/$program $out/lib/berth/
    done
    find $out/bin -type f ! -name berth -delete
    cp -r units/system $out/lib/systemd/
    cp -r units/tmpfiles.d units/modules-load.d units/sysctl.d $out/lib/
    find $out/lib/systemd -type f -exec sed -i \
      -e "s|/usr/lib/berth|$out/lib/berth|g" -e "s|/usr/share/doc|$out/share/doc|g" {} +
    cp README.md LICENSE $out/share/doc/berth/
    mkdir -p $out/share/man/man1
    $out/bin/berth manual $out/share/man/man1
  '';

  meta = {
    description = "Services as containers under systemd, steered through one HTTPS API";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
    mainProgram = "berth";
  };
}
