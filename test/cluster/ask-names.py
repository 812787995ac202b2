"""Asks a name server again and again until standard input ends, and prints what came of it as a line of JSON each time.

usage: ask-names.py NAME ADDRESS...    each address is asked in three ways: over a socket that is kept and not connected
(kept), over a connection of its own (new), and over a connected UDP socket of its own (udp). An answer that is missing
after two seconds, has no address in it or comes from somewhere else is lost, and standard error says which.
"""

import json
import socket
import struct
import sys
import threading
import time

name, *addresses = sys.argv[1:]
counts = {"kept": 0, "new": 0, "udp": 0, "lost": 0, "retransmitted": 0}
number = 0
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()


def question():
    global number
    number = (number + 1) % 65536
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def check(answer, sender, address):
    identity, flags, _, answers = struct.unpack(">4H", answer[:8])
    if identity != number or flags & 0xF or not answers:
        raise OSError(f"answer {answer[:12].hex()} to question {number}")
    if sender != (address, 53):
        raise OSError(f"the answer comes from {sender}")


def fresh(address, kind):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, kind)
    one.settimeout(2)
    return one


def ask_kept(address, sockets={}):
    one = sockets.setdefault(address, None) or fresh(address, socket.SOCK_DGRAM)
    sockets[address] = one
    one.sendto(question(), (address, 53))
    answer, sender = one.recvfrom(4096)
    check(answer, sender[:2], address)


def ask_udp(address):
    with fresh(address, socket.SOCK_DGRAM) as one:
        one.connect((address, 53))
        one.send(question())
        check(one.recv(4096), one.getpeername()[:2], address)


def ask_new(address):
    with fresh(address, socket.SOCK_STREAM) as one:
        one.connect((address, 53))
        text = question()
        one.sendall(struct.pack(">H", len(text)) + text)
        answer = one.makefile("rb")
        size = struct.unpack(">H", answer.read(2))[0]
        check(answer.read(size), one.getpeername()[:2], address)


while not ended.wait(0.02):
    for address in addresses:
        for kind, ask in (("kept", ask_kept), ("new", ask_new), ("udp", ask_udp)):
            try:
                ask(address)
                counts[kind] += 1
            except (OSError, struct.error) as error:
                counts["lost"] += 1
                print(time.strftime("%H:%M:%S"), kind, address, error, file=sys.stderr, flush=True)
    print(json.dumps(counts), flush=True)
