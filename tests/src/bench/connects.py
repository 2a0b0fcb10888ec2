# Opens and closes so many connections one after the other; prints the microseconds that one took on average.
import socket
import sys
import time

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
began = time.monotonic()
for _ in range(count):
    socket.create_connection((address, port), timeout=60).close()
print(round((time.monotonic() - began) * 1e6 / count))
