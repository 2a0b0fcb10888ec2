"""A registry on port 5002 whose manifest (of the image `manifest`) or config (of any other) has 300 MB."""

import http.server
import json

LENGTH = 300_000_000
DIGEST = "sha256:" + "0" * 64
KIND = "application/vnd.oci.image."


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if "/manifests/" in self.path and "/manifest/" not in self.path:
            config = {"mediaType": KIND + "config.v1+json", "digest": DIGEST, "size": LENGTH}
            layer = {"mediaType": KIND + "layer.v1.tar", "digest": DIGEST, "size": 10}
            manifest = {"schemaVersion": 2, "mediaType": KIND + "manifest.v1+json", "config": config, "layers": [layer]}
            self.answer(json.dumps(manifest).encode(), KIND + "manifest.v1+json")
        elif "/manifests/" in self.path or "/blobs/" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", KIND + "manifest.v1+json")
            self.send_header("Content-Length", str(LENGTH))
            self.end_headers()
            if self.command == "GET":
                for _ in range(LENGTH // 1_000_000):
                    self.wfile.write(b" " * 1_000_000)
        else:
            self.answer(b"{}", "application/json")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", 5002), Registry).serve_forever()
