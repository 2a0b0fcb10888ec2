# What people and programs wait for at the door; lines of "<what> <microseconds>", and one of "watcher <bytes>".
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time

SPACE = "/api/v1/namespaces/default/configmaps"
WATCHERS, LOGINS, TIMES = 200, 10, 20
CONFIG = "/run/bench.config"


class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect("/run/berth/api.sock")


def ask(connection, method, path, body=None):
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {said[:300]}")
    return said


def took(what, work):
    began = time.monotonic_ns()
    work()
    print(what, (time.monotonic_ns() - began) // 1000, flush=True)


def own_memory():
    process = subprocess.run(["pgrep", "-x", "berthd"], capture_output=True, text=True, check=True).stdout.strip()
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


def watcher():
    connection = Local("localhost", timeout=300)
    connection.request("GET", SPACE + "?watch=true&fieldSelector=metadata.name%3Dnone")
    connection.getresponse()
    return connection


def watchers():
    first = [watcher() for _ in range(20)]
    time.sleep(5)
    before = own_memory()
    more = [watcher() for _ in range(WATCHERS)]
    time.sleep(5)
    print("watcher", (own_memory() - before) // WATCHERS, flush=True)
    for connection in first + more:
        connection.close()


def login():
    trusted = ssl.create_default_context(cafile="/var/lib/berth/ca.crt")
    connection = http.client.HTTPSConnection("localhost", 6443, context=trusted, timeout=300)
    ask(connection, "POST", "/auth/login", {"user": "bench", "password": "not a password of anybody"})
    connection.close()


local = Local("localhost", timeout=300)
ask(local, "POST", SPACE, {"metadata": {"name": "kept-7"}, "data": {"word": "first"}})
ask(local, "POST", "/apis/berth.dev/v1/users", {"metadata": {"name": "bench"}})
ask(local, "POST", "/apis/berth.dev/v1/users/bench/password", {"password": "not a password of anybody"})
for _ in range(LOGINS):
    took("login", login)
with open(CONFIG, "w") as config:
    config.write(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "b",
        "clusters": [{"name": "b", "cluster": {"server": "https://localhost:6443", "certificate-authority": "/var/lib/berth/ca.crt"}}],
        "users": [{"name": "b", "user": {"tokenFile": "/var/lib/berth/token"}}],
        "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}]}))
kubectl = ["kubectl", "--kubeconfig", CONFIG]
for _ in range(TIMES):
    took("kubectl", lambda: subprocess.run([*kubectl, "get", "configmap", "kept-7"], check=True, stdout=subprocess.DEVNULL))
    took("client", lambda: subprocess.run([*kubectl, "version", "--client"], check=True, stdout=subprocess.DEVNULL))
watchers()
