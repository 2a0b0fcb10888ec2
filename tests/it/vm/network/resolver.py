# A resolver of the machine on 127.0.0.53: knows names that hold "outside", as 192.0.2.77.
import socket

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
while True:
    asked, asker = server.recvfrom(4096)
    end = 12
    while asked[end]:
        end += asked[end] + 1
    question = asked[12 : end + 5]
    known = b"outside" in question
    answer = known and question[-4:-2] == b"\0\1"
    said = asked[:2] + bytes([0x81, 0x80 if known else 0x83, 0, 1, 0, int(answer), 0, 0, 0, 0]) + question
    if answer:
        said += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([192, 0, 2, 77])
    server.sendto(said, asker)
