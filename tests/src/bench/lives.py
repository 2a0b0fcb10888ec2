# Kills the first process of a unit so many times; prints the microseconds until another one is there.
import os
import signal
import subprocess
import sys
import time

unit, rounds = sys.argv[1], int(sys.argv[2])


def shown(name):
    return subprocess.run(["systemctl", "show", "-P", name, unit], capture_output=True, text=True).stdout.strip()


def main():
    """The process that systemd takes for the first one, if it lives."""
    process = shown("MainPID")
    try:
        with open(f"/proc/{process}/stat") as stat:
            return None if stat.read().rsplit(")", 1)[1].split()[0] == "Z" else process
    except FileNotFoundError:
        return None


for _ in range(rounds):
    subprocess.run(["systemctl", "reset-failed", unit], stderr=subprocess.DEVNULL)
    was = main()
    began = time.monotonic_ns()
    os.kill(int(was), signal.SIGKILL)
    while not (shown("ActiveState") == "active" and main() not in (was, None)):
        pass
    print((time.monotonic_ns() - began) // 1000)
