# Berth on a NixOS machine, as its owner meets it: the supervisor is up, an image is imported, a service runs.
{ pkgs, module }:

pkgs.testers.runNixOSTest {
  name = "berth";
  nodes.machine = {
    imports = [ module ];
    services.berth.enable = true;
    virtualisation.memorySize = 2048;
    virtualisation.diskSize = 8192;
    environment.etc."web.tar".source = pkgs.dockerTools.buildLayeredImage {
      name = "web";
      tag = "1";
      contents = [ pkgs.busybox ];
      config.Cmd = [
        "/bin/httpd"
        "-f"
        "-p"
        "80"
      ];
    };
  };
  testScript = ''
    machine.wait_for_unit("berthd.service")
    machine.succeed("${pkgs.skopeo}/bin/skopeo --insecure-policy copy docker-archive:/etc/web.tar oci-archive:/tmp/web.oci:web:1")
    machine.succeed("berth image import /tmp/web.oci")
    machine.succeed("berth install web:1 --name web --publish 8080:80 --timeout 5m")
    machine.succeed("systemctl is-active 'berth.default.web.r1.service'")
    machine.succeed("systemctl restart berthd && berth status web")
  '';
}
