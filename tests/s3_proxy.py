"""An HTTP proxy in front of an S3 server that delays, refuses or drops requests on demand."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class S3Proxy(ThreadingHTTPServer):
    """Forwards requests to a server on this machine.

    Attributes:
        trouble: Called with method and path before each request is forwarded; may wait, or return the status of a
            refusal. `0` closes the connection.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.trouble: Callable[[str, str], int | None] = lambda method, path: None

    @contextlib.contextmanager
    def served(self) -> Iterator["S3Proxy"]:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()

    def uri(self, behind: str) -> str:
        """The URI by which a place on the server is reached through the proxy."""
        return behind.replace(f":{self.behind}", f":{self.server_port}")

    def handle_error(self, *_: object) -> None:
        """Ignore clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Proxy

    def _forward(self) -> None:
        body = b"".join(self._chunks()) or self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = self.server.trouble(self.command, self.path)
        if status is not None:
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.close_connection = True
            return
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _chunks(self) -> Iterator[bytes]:
        """The body of a request with chunked transfer encoding."""
        while self.headers.get("Transfer-Encoding") == "chunked":
            size = int(self.rfile.readline().partition(b";")[0], 16)
            yield self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

    def log_message(self, *_: object) -> None:
        pass


def slow(seconds: float, method: str = "PUT") -> Callable[[str, str], None]:
    """Delay each request of a method before it is forwarded."""

    def trouble(asked: str, _: str) -> None:
        if asked == method:
            time.sleep(seconds)

    return trouble
