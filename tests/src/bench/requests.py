# Asks the supervisor through its local socket and prints lines of "<what> <microseconds>", one for each time it was done.
import http.client
import json
import socket
import subprocess
import sys
import threading
import time

KEPT = "/api/v1/namespaces/default/configmaps"
OBJECTS, ASKED, LISTED, WATCHED, APPLIED = 1000, 500, 20, 200, 8


class Local(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("localhost", timeout=300)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("/run/berth/api.sock")


def ask(connection, method, path, body=None, kind="application/json"):
    connection.request(method, path, body and json.dumps(body), {"Content-Type": kind})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {said[:300]}")
    return said


def took(what, work):
    began = time.monotonic_ns()
    done = work()
    print(what, (time.monotonic_ns() - began) // 1000)
    return done


def named(number, word):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"kept-{number}"}, "data": {"word": word}}


def watch(until, seen):
    """Notes when each change of the object that is watched came in."""
    connection = Local()
    connection.request("GET", KEPT + "?watch=true&fieldSelector=metadata.name%3Dkept-0")
    answer = connection.getresponse()
    until.set()
    while len(seen) < WATCHED:
        word = json.loads(answer.readline())["object"]["data"]["word"]
        if word.startswith("change-"):
            seen[int(word[7:])] = time.monotonic_ns()


def latencies(connection):
    ready, seen, sent = threading.Event(), {}, {}
    watcher = threading.Thread(target=watch, args=(ready, seen))
    watcher.start()
    ready.wait()
    for number in range(WATCHED):
        patch = {"data": {"word": f"change-{number}"}}
        sent[number] = time.monotonic_ns()
        ask(connection, "PATCH", KEPT + "/kept-0", patch, "application/merge-patch+json")
    watcher.join()
    for number in range(WATCHED):
        print("watch", (seen[number] - sent[number]) // 1000)


connection = Local()
for number in range(OBJECTS):
    ask(connection, "POST", KEPT, named(number, "first"))
for _ in range(ASKED):
    took("get", lambda: ask(connection, "GET", KEPT + "/kept-7"))
for _ in range(LISTED):
    found = took("list", lambda: ask(connection, "GET", KEPT))
latencies(connection)
for round in range(APPLIED):
    items = [named(number, f"round-{round}") for number in range(50)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()
    took("apply", lambda: subprocess.run(["berth", "apply", "-f", "-"], input=text, check=True, stdout=subprocess.DEVNULL))
# The first one has been silent for so long that the supervisor may have hung up.
connection = Local()
for number in range(OBJECTS):
    ask(connection, "DELETE", f"{KEPT}/kept-{number}")
