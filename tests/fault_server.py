"""An OpenAI-compatible server that answers from a script, faults included."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One scripted answer.

    Attributes:
        status: HTTP status; 0 closes the connection without a word.
        body: JSON value, or a string that is sent as it is.
        headers: Besides the usual ones.
        delay_s: Wait before answering.
        cut: Close the connection in the middle of the body.
        drip_s: Wait before each byte of the body.
        after: Wait until so many requests have come.
    """

    status: int = 200
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False
    drip_s: float = 0.0
    after: int = 0


def plain_completion(*texts: str) -> Answer:
    """A correct answer of the completions API with one choice per text."""
    choices = [{"index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate(texts)]
    usage = {"prompt_tokens": 7, "completion_tokens": 4}
    return Answer(body={"choices": choices, "usage": usage})


def fastchat_error(message: str, code: int) -> Answer:
    """A refusal in FastChat's form, which is always a 400."""
    return Answer(status=400, body={"object": "error", "message": message, "code": code})


def openai_error(message: str, *, param: str | None = None, code: str | None = None) -> Answer:
    """A refusal in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Answer(status=400, body={"error": error})


def completion(*texts: str, prompt_tokens: int = 7, generated: int | None = 4) -> Answer:
    """A correct answer with one choice per text."""
    body: dict[str, Any] = {
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ]
    }
    if generated is not None:
        body["usage"] = {"prompt_tokens": prompt_tokens, "completion_tokens": generated}
    return Answer(body=body)


@dataclass(kw_only=True)
class FaultServer:
    """A running server; the last answer of the script repeats.

    Attributes:
        base_url: What a client is given.
        requests: Bodies received, in order.
        headers: Headers received, in order.
        most_at_once: Largest number of requests that were being answered at the same time.
    """

    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def fault_server(answers: Sequence[Answer]) -> Iterator[FaultServer]:
    """Run a server in a thread while the context lasts."""
    seen = FaultServer()
    lock = threading.Condition()
    running = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal running
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                running += 1
                seen.most_at_once = max(seen.most_at_once, running)
                answer = answers[min(len(seen.requests), len(answers) - 1)]
                seen.requests.append({"path": self.path, **body})
                seen.headers.append(dict(self.headers))
                lock.notify_all()
                lock.wait_for(lambda: len(seen.requests) >= answer.after, timeout=_PATIENCE_S)
            time.sleep(answer.delay_s)
            with lock:
                running -= 1
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            if answer.status == 0:
                self.close_connection = True
                return
            text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            data = text.encode()
            if answer.cut:
                data = data[: len(data) // 2]
                self.close_connection = True
            for part in (
                [data] if not answer.drip_s else [data[i : i + 1] for i in range(len(data))]
            ):
                time.sleep(answer.drip_s)
                self.wfile.write(part)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client gave up, as a test wanted
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
