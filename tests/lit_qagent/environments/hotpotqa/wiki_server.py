"""A wiki's API on this machine: a few pages of invented facts, and faults on demand."""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOWN = (
    "Vardholm is a town on the river Aske. It has a harbour. J. K. Brandt was born there. "
    "It has a mill! It has a school.\n\n== Rule ==\nIts mayor is Ines Brandt. "
    "The harbour opened in 1874."
)
EXTRACTS = {"Vardholm": TOWN, "Aske River": "The Aske River rises near Vardholm.", "Empty": ""}
REDIRECTS = {"River Aske": "Aske River"}
MEANINGS = ("Harbour",)
SEARCHES = {
    "harbour": ["Harbour", "Harbour (disambiguation)", "Vardholm", "Aske River"],
    "vardholm": ["Vardholm"],
    "aske": ["Aske River", "Vardholm"],
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One answer other than the right one.

    Attributes:
        status: HTTP status; 0 cuts the connection before any answer.
        body: What is sent.
        content_type: Header.
        headers: Further headers.
        missing_bytes: The length promised exceeds the body by this much.
        delay_s: Wait before the answer.
        drip_s: Wait before each byte.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    missing_bytes: int = 0
    delay_s: float = 0.0
    drip_s: float = 0.0


@dataclass(kw_only=True)
class WikiServer:
    """A running server.

    Attributes:
        url: Address of its ``api.php``.
        requests: Parameters received, in order.
        moments: When they came, in seconds of the monotonic clock.
        agents: User agents received.
    """

    url: str = ""
    requests: list[dict[str, str]] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)


@contextmanager
def wiki_server(
    faults: Sequence[Fault] = (), extracts: Mapping[str, str] = EXTRACTS
) -> Iterator[WikiServer]:
    """Run a server that answers with the faults first, then rightly."""
    seen = WikiServer()
    waiting = deque(faults)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            with lock:
                seen.requests.append(asked)
                seen.moments.append(time.monotonic())
                seen.agents.append(self.headers["User-Agent"])
                fault = waiting.popleft() if waiting else None
            self._send(fault or Fault(body=json.dumps(_answer(asked, extracts)).encode()))

        def _send(self, fault: Fault) -> None:
            time.sleep(fault.delay_s)
            if fault.status == 0:
                return
            self.send_response(fault.status)
            self.send_header("Content-Type", fault.content_type)
            self.send_header("Content-Length", str(len(fault.body) + fault.missing_bytes))
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if not fault.drip_s:
                self.wfile.write(fault.body)
                return
            for byte in fault.body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(fault.drip_s)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client gave up, as a test wanted
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_address[1]}/w/api.php"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(asked: Mapping[str, str], extracts: Mapping[str, str]) -> dict[str, Any]:
    """Answer as MediaWiki does with formatversion 2."""
    if asked.get("list") == "search":
        words = asked["srsearch"].lower().split()
        titles = next((SEARCHES[word] for word in words if word in SEARCHES), [])
        rows = [{"ns": 0, "title": title, "pageid": 1} for title in titles]
        info = {"totalhits": len(rows)}
        return {"batchcomplete": True, "query": {"searchinfo": info, "search": rows}}
    title = asked["titles"]
    query: dict[str, Any] = {}
    if title[:1].islower():
        query["normalized"] = [{"from": title, "to": title[:1].upper() + title[1:]}]
        title = title[:1].upper() + title[1:]
    if title in REDIRECTS:
        query["redirects"] = [{"from": title, "to": REDIRECTS[title]}]
        title = REDIRECTS[title]
    page: dict[str, Any] = {"pageid": 7, "ns": 0, "title": title}
    if title in extracts:
        page["extract"] = extracts[title]
    elif title in MEANINGS:
        page |= {"extract": "Harbour may refer to:", "pageprops": {"disambiguation": ""}}
    else:
        page = {"ns": 0, "title": title, "missing": True}
    return {"batchcomplete": True, "query": query | {"pages": [page]}}
