# Tries connections: each line of the input is "label address port"; prints the labels that were answered.
import socket
import sys

for line in sys.stdin:
    label, address, port = line.rsplit(" ", 2)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.settimeout(10)
        try:
            attempt.connect((address, int(port)))
            print(label, flush=True)
        except OSError:
            pass
