"""Every program of the example shop; the first argument says which one this is.

Services find each other by headless names and talk HTTP, Redis' protocol, or lines of text, over IPv4 and IPv6 in
turn where both are there. Only what Python brings along is used.
"""

import http.client
import itertools
import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT_SECONDS = 2
turn = itertools.count()


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def dial(host, port):
    """Connects to a name, preferring IPv4 and IPv6 in turn."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    wanted = (socket.AF_INET, socket.AF_INET6)[next(turn) % 2]
    found.sort(key=lambda each: each[0] != wanted)
    family, kind, protocol, _, address = found[0]
    connection = socket.socket(family, kind, protocol)
    connection.settimeout(TIMEOUT_SECONDS)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def ask(method, host, path, port=8080):
    """One HTTP request; returns what the JSON answer says."""
    client = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    client.sock = dial(host, port)
    try:
        client.request(method, path)
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"{host} answered {answer.status}: {body.decode(errors='replace')}")
        return json.loads(body)
    finally:
        client.close()


def redis(*words):
    """One command of Redis' protocol (RESP) whose answer is a number."""
    with dial("redis.data", 6379) as connection:
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(f"*{len(words)}\r\n{parts}".encode())
        answer = connection.makefile()
        line = answer.readline().strip()
        if line == "$-1":  # no such key
            return 0
        return int(answer.readline() if line.startswith("$") else line[1:])


def serve(routes, port=8080):
    """Serves HTTP: a route's function returns what is sent as JSON."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            status, body = 200, None
            if self.path == "/healthy":
                body = "yes"
            else:
                route = routes.get((self.command, self.path))
                try:
                    status, body = (200, route()) if route else (404, "no such page")
                except OSError as error:
                    status, body = 502, str(error)
                    say(self.command, self.path, "failed:", error)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

        def server_bind(self):
            if self.address_family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    say("listening on", port)
    Server(("", port), Handler).serve_forever()


def repeat(seconds, work):
    """Does work for ever, and says what went wrong without ending."""
    while True:
        try:
            work()
        except (OSError, ValueError) as error:
            say(f"{work.__name__}:", error)
        time.sleep(seconds)


def shopper():
    """A customer: looks at the shop every second, and buys something now and then."""

    def look_around():
        page = ask("GET", "web.storefront", "/")
        say("saw", len(page["products"]), "products,", page["in_cart"], "in the cart")

    def buy():
        say("bought:", ask("POST", "web.storefront", "/buy")["order"])

    threading.Thread(target=repeat, args=(4, buy), daemon=True).start()
    repeat(1, look_around)


def web():
    """The shop's page."""

    def page():
        return {
            "products": ask("GET", "catalog.backend", "/products"),
            "in_cart": ask("GET", "cart.backend", "/count"),
            "recommended": ask("GET", "recommender.storefront", "/recommendations"),
        }

    def buy():
        ask("POST", "cart.backend", "/add")
        return ask("POST", "checkout.backend", "/order")

    serve({("GET", "/"): page, ("POST", "/buy"): buy})


def recommender():
    """A component from somewhere else. It does its work, and beside it tries what is none of its business."""

    def recommend():
        return ask("GET", "catalog.backend", "/products")[:1]

    def steal_carts():
        say("read the carts:", redis("GET", "cart"))

    def charge_someone():
        say("charged someone:", ask("POST", "payment.backend", "/charge"))

    def phone_home():
        dial("198.51.100.1", 443).close()
        say("phoned home")

    for prank in (steal_carts, charge_someone, phone_home):
        threading.Thread(target=repeat, args=(5, prank), daemon=True).start()
    serve({("GET", "/recommendations"): recommend})


def catalog():
    serve({("GET", "/products"): lambda: ["lamp", "chair", "teapot"]})


def cart():
    serve(
        {
            ("GET", "/count"): lambda: redis("GET", "cart"),
            ("POST", "/add"): lambda: redis("INCR", "cart"),
            ("POST", "/empty"): lambda: redis("DEL", "cart"),
        }
    )


def checkout():
    def order():
        paid = ask("POST", "payment.backend", "/charge")
        with dial("ledger.data", 7000) as connection:
            connection.sendall(f"order paid by {paid['receipt']}\n".encode())
            written = connection.makefile().readline().strip()
        ask("POST", "cart.backend", "/empty")
        return {"order": written}

    serve({("POST", "/order"): order})


def payment():
    receipts = itertools.count(1)
    serve({("POST", "/charge"): lambda: {"receipt": f"receipt-{next(receipts)}"}})


def ledger():
    """Writes down every line it is sent, and answers with the line's number."""
    numbers = itertools.count(1)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                number = next(numbers)
                say(number, line.decode(errors="replace").strip())
                self.wfile.write(f"written as {number}\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    Server(("", 7000), Handler).serve_forever()


if __name__ == "__main__":
    # As process 1 of a container it would not end when asked to.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    roles = (shopper, web, recommender, catalog, cart, checkout, payment, ledger)
    {role.__name__: role for role in roles}[sys.argv[1]]()
