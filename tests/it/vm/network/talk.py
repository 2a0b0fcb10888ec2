# Keeps one connection open to an echo service and says a word on it for every line of the input.
import socket
import sys

with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as talk:
    for number, line in enumerate(sys.stdin):
        word = f"word {number}\n".encode()
        talk.sendall(word)
        heard = b""
        while len(heard) < len(word):
            piece = talk.recv(len(word) - len(heard))
            if not piece:
                sys.exit("the connection was closed")
            heard += piece
        print("heard" if heard == word else f"heard {heard!r}", flush=True)
