"""A small web server on the loopback address: nothing leaves the machine."""

import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"


class FetchError(RuntimeError):
    """An address that could not be fetched, or that must not be."""


@contextmanager
def serve(pages: Mapping[str, bytes]) -> Iterator[str]:
    """Serve pages by their path ("/domain/name") inside the block, and close the server after it.

    Yields the address that every path is appended to. What is changed in `pages` meanwhile is
    served as changed, as when a domain gets another owner. Only this machine can connect.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(address: str, limit: int = 100_000, timeout: float = 5.0) -> bytes:
    """The content of an address on the loopback address, never through a proxy.

    Raises FetchError for any other machine, for a page that is not there, larger than `limit`
    bytes or slower than `timeout` seconds.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "http" or parts.hostname != HOST:
        raise FetchError(
            f"{address!r} is not on this machine: this course fetches from http://{HOST} only."
        )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=timeout) as answer:
            content = answer.read(limit + 1)
    except (urllib.error.URLError, OSError) as error:
        raise FetchError(f"{address} could not be fetched: {error}.") from error
    if len(content) > limit:
        raise FetchError(f"{address} is larger than {limit:,} bytes: raise the limit to fetch it.")
    return content
