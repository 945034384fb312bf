"""A judge on loopback that misbehaves as told: slow, 429, 500, cut lines, garbage, nonsense, or no answer at all."""

from collections import Counter
import contextlib
import http.server
import json
import threading
import time


class Server(http.server.ThreadingHTTPServer):
    """Prefers the answer that holds "good". `plan(number, attempt)` says how the request of that number is answered.

    `tried` counts attempts by question and order, `answered` those that got a whole answer.
    """

    daemon_threads = True

    def __init__(self, plan):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = plan
        self.tried, self.answered, self.keys = Counter(), Counter(), []
        self.on_way = self.most_on_way = 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """The client may be gone, or killed: that is what some tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server, shown = self.server, body["messages"][-1]["content"]
        with server.lock:
            server.on_way += 1
            server.most_on_way = max(server.most_on_way, server.on_way)
            server.keys.append(self.headers.get("authorization"))
            attempt = server.tried[shown]
            server.tried[shown] += 1
            number = list(server.tried).index(shown)
        try:
            self.answer(server.plan(number, attempt), shown)
        finally:
            with server.lock:
                server.on_way -= 1

    def answer(self, how, shown):
        if isinstance(how, float):
            time.sleep(how)
            how = "good"
        if how == "hold":
            time.sleep(60)
        elif how in ("400", "401", "404", "429", "500", "503"):
            self.send(int(how), b'{"error": "this is a stub"}', {"retry-after": "0.1"} if how == "429" else {})
        elif how == "cut":
            self.send(200, b'{"choices": [{"mess', {"content-length": "1000"})
            self.close_connection = True
        elif how == "garbage":
            self.send(200, b"<html>come back later</html>")
        elif how == "packed":
            self.send(200, b"this is not gzip", {"content-encoding": "gzip"})
        elif isinstance(how, bytes):
            self.send(200, how)
        else:
            with self.server.lock:
                self.server.answered[shown] += 1
            text = "I like both." if how == "nonsense" else self.verdict(shown)
            usage = {} if how == "uncounted" else {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}
            self.send(200, json.dumps({"choices": [{"message": {"content": text}}], **usage}).encode())

    def verdict(self, shown):
        if "assistant A" not in shown:
            return "Rating: [[8]]" if "good" in shown.partition("[Answer begins]")[2] else "Rating: [[3.5]]"
        a, b = ("good" in shown.partition(f"assistant {name} begins]")[2].partition("ends]")[0] for name in "AB")
        return f"So it is. [[{'C' if a == b else 'A' if a else 'B'}]]"

    def send(self, status, data, headers=()):
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serving(plan=None):
    """Returns a context with a server on a port of its own; without a plan every request gets a verdict."""
    with Server(plan or (lambda *_: "good")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
