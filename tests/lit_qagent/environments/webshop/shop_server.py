"""A shop server with the original's addresses and page structure, faults on demand."""

import ast
import html
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from lit_qagent.environments.webshop.catalog import Product

PAGE_SIZE = 3


@dataclass(kw_only=True)
class Fault:
    """What happens instead of a page.

    Attributes:
        status: HTTP status; 0 closes the connection.
        body: Sent as it is.
        delay_s: Wait before answering.
        trickle_s: Wait between the letters of the body.
    """

    status: int = 200
    body: bytes = b""
    delay_s: float = 0.0
    trickle_s: float = 0.0


@dataclass(kw_only=True)
class ShopServer:
    """A running server.

    Attributes:
        base_url: Where it listens.
        products: What it sells; equal words of titles and queries are found.
        paths: Addresses asked for, decoded.
        faults: Used up from the front before anything else is answered.
        reward: What a purchase earns, as written on the last page.
    """

    products: Sequence[Product]
    base_url: str = ""
    paths: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    reward: str = "0.75"

    def page(self, parts: list[str]) -> str:
        """Return the HTML of an address."""
        kind, session = (parts[0], parts[1]) if len(parts) > 1 else ("start", parts[0])
        head = (
            "<html><head><title>Shop</title><style>p {}</style></head><body><script>go()</script>"
        )
        goal = f"<h4>Instruction:<br>i need goal {html.escape(session)} &amp; more</h4>"
        if kind == "start":
            body = f"<h2>WebShop</h2>{goal}<form><input name=q><button>Search</button></form>"
        elif kind == "search_results":
            body = goal + self._results(ast.literal_eval(parts[2]), int(parts[3]))
        elif kind == "item_page":
            body = goal + self._item(parts[2])
        elif kind == "item_sub_page":
            assert isinstance(ast.literal_eval(parts[6]), dict)
            body = goal + _button("Back to Search") + _button("< Prev") + f"<p>About {parts[5]}</p>"
        elif kind == "done":
            options = html.escape(parts[3])
            body = (
                f"<p>Thank you!</p><h3>Your score (min 0.0, max 1.0)<pre>{self.reward}</pre></h3>"
                f"<p>{options}</p>"
            )
        else:
            raise LookupError(kind)
        return f"{head}{body}<!-- hidden --></body></html>"

    def _results(self, words: list[str], number: int) -> str:
        found = [
            product for product in self.products if set(words) & set(product.title.lower().split())
        ]
        shown = found[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
        rows = "".join(
            f'<div><h4><a class="product-link" href="#">{product.asin}</a></h4>'
            f"<h4>{product.title}</h4><h5>{product.price_tag}</h5></div>"
            for product in shown
        )
        buttons = _button("Back to Search")
        buttons += f"<h3>Page {number} (Total results: {len(found)})</h3>"
        buttons += _button("< Prev") if number > 1 else ""
        return buttons + _button("Next >") + rows

    def _item(self, asin: str) -> str:
        product = next(product for product in self.products if product.asin == asin)
        options = ""
        for kind, values in product.options.items():
            options += f"<h4>{kind}</h4>" + "".join(
                f'<input type="radio" name="{kind}" value="{value}"><label>{value}</label>'
                for value in values
            )
        buttons = "".join(map(_button, ("Description", "Features", "Reviews", "Buy Now")))
        lead = _button("Back to Search") + _button("< Prev")
        return (
            f'{lead}{options}<img src="x.jpg"><h2>{product.title}</h2>'
            f"<h4>Price: {product.price_tag}</h4>{buttons}"
        )


def _button(text: str) -> str:
    return f'<button type="submit" class="btn">{html.escape(text)}</button>'


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        shop = self.server.shop
        shop.paths.append(unquote(self.path))
        if shop.faults:
            self._fail(shop.faults.pop(0))
            return
        parts = [unquote(part) for part in self.path.strip("/").split("/")]
        self._send(200, shop.page(parts).encode())

    def _fail(self, fault: Fault) -> None:
        time.sleep(fault.delay_s)
        if fault.status == 0:
            return
        if not fault.trickle_s:
            self._send(fault.status, fault.body)
            return
        self.send_response(fault.status)
        self.end_headers()
        for byte in fault.body:
            self.wfile.write(bytes([byte]))
            time.sleep(fault.trickle_s)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        if 300 <= status < 400:
            self.send_header("Location", "http://elsewhere.invalid/")
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client gave up, as a test wanted
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    shop: ShopServer


@contextmanager
def shop_server(products: Sequence[Product]) -> Iterator[ShopServer]:
    """Run a server in a thread while the context lasts."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.shop = shop = ShopServer(
        products=products, base_url=f"http://127.0.0.1:{server.server_address[1]}"
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
