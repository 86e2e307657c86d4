"""A real server that is killed midway and comes back, or does not."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from data_collection.store import TreeStore
from tests.data_collection.test_collect import REWARDS, _start_collecting, _wait_for_iterations

_SERVER = """
import json, random, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rng = random.Random(asked["seed"])
        time.sleep(0.02)
        choices = [
            {"index": i, "message": {"role": "assistant", "content": rng.choice("abc")},
             "finish_reason": "stop"}
            for i in range(asked["n"])
        ]
        usage = {"prompt_tokens": 5, "completion_tokens": asked["n"]}
        data = json.dumps({"choices": choices, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _start_server(port: int) -> "subprocess.Popen[bytes]":
    server = subprocess.Popen([sys.executable, "-c", _SERVER, str(port)])
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.05)
    raise AssertionError("the server did not start in 30 s")


def _kill(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGKILL)
    server.wait()


def _config(folder: Path, port: int, patience_s: float) -> Path:
    config = {
        "environment": {
            "class_path": "tests.data_collection.parts.LetterWorld",
            "init_args": {"rewards": REWARDS, "num_tasks": 6},
        },
        "policy": {
            "class_path": "lit_qagent.policies.openai.OpenAIPolicy",
            "init_args": {
                "model": "letters",
                "base_url": f"http://127.0.0.1:{port}/v1",
                "max_retries": 0,
            },
        },
        "search": {"num_iterations": 12, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0},
        "store": str(folder / "store"),
        "concurrency": 3,
        "outage_patience_s": patience_s,
    }
    path = folder / f"config-{patience_s}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.integration
def test_the_run_waits_for_the_server_and_fails_no_task(tmp_path: Path) -> None:
    port, store = _free_port(), tmp_path / "store"
    server = _start_server(port)
    try:
        process = _start_collecting(_config(tmp_path, port, 60.0))
        _wait_for_iterations(store, 12)
        _kill(server)
        time.sleep(1.5)
        server = _start_server(port)
        _, errors = process.communicate(timeout=120)
    finally:
        _kill(server)
    assert process.returncode == 0, errors
    assert "asking again" in errors
    ends = [tree.end for tree in TreeStore(store).trees()]
    assert len(ends) == 6
    assert all(end is not None and end.failure is None for end in ends)


@pytest.mark.integration
def test_a_server_that_stays_away_ends_the_run_which_can_be_gone_on_with(tmp_path: Path) -> None:
    port, store = _free_port(), tmp_path / "store"
    server = _start_server(port)
    path = _config(tmp_path, port, 1.0)
    process = _start_collecting(path)
    _wait_for_iterations(store, 12)
    _kill(server)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the policy has answered nobody" in errors
    assert f"python -m data_collection collect --config {path}" in errors
    assert "Traceback" not in errors
    kept = {each.name: each.read_bytes() for each in store.glob("trees/*.jsonl")}
    assert sum(data.count(b"\n") for data in kept.values()) >= 12
    server = _start_server(port)
    try:
        again = _start_collecting(path)
        _, errors = again.communicate(timeout=120)
    finally:
        _kill(server)
    assert again.returncode == 0, errors
    assert all((store / "trees" / name).read_bytes().startswith(kept[name]) for name in kept)
    assert all(tree.end and not tree.end.failure for tree in TreeStore(store).trees())
