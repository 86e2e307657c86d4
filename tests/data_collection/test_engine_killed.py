"""Real engines and servers that are killed midway; `test_server_killed` has scripted ones."""

import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from subprocess import Popen

import psutil  # type: ignore[import-untyped]
import pytest
import yaml

from data_collection.collect import choose_tasks, collect
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.records import Sampling
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies import vllm as vllm_policy
from lit_qagent.policies.vllm import VLLMPolicy
from lit_qagent.policies.vllm_engine import Engine, EngineSpec, start_engine
from tests.data_collection.test_collect import _start_collecting, _wait_for_iterations
from tests.server_process import free_port, server_process
from tests.tiny_model import save_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

NUM_TASKS = 6


def _kill_engine_core(above: int) -> None:
    """Kill the process of the engine's core below another process."""
    for process in psutil.Process(above).children(recursive=True):
        with suppress(psutil.Error):
            if "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
                return
    raise AssertionError(f"no engine core below process {above}")


def _all_ended_well(store: Path) -> bool:
    ends = [tree.end for tree in TreeStore(store).trees()]
    return len(ends) == NUM_TASKS and all(end is not None and not end.failure for end in ends)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # vLLM leaves a socket context open
def test_the_run_goes_on_with_a_new_engine_when_the_core_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine that GPUs use, with its core in a process of its own."""
    started: list[Engine] = []

    def start(spec: EngineSpec, *, one_process: bool) -> Engine:
        assert one_process
        started.append(start_engine(spec, one_process=False))
        return started[-1]

    monkeypatch.setattr(vllm_policy, "start_engine", start)
    policy = VLLMPolicy(
        str(save_tiny_model(tmp_path / "tiny")),
        dtype="float32",
        max_num_seqs=8,
        engine_args={"enforce_eager": True, "kv_cache_memory_bytes": 2**26, "block_size": 32},
    )
    setup = SearchSetup(
        environment=ToyWorld(),
        policy=policy,
        search=SearchSpec(num_iterations=8, stop_at_success=False),
        prompt=PromptSpec(think=False, num_examples=0),
        sampling=Sampling(max_tokens=16),
        seed=0,
    )
    store = tmp_path / "store"
    errors: list[BaseException] = []

    def kill() -> None:
        try:
            _wait_for_iterations(store, 12, limit_s=1800)
            _kill_engine_core(os.getpid())
        except BaseException as error:
            errors.append(error)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = collect(setup, choose_tasks(setup, "train", 0, NUM_TASKS), TreeStore(store))
    killer.join()
    assert not errors
    assert len(started) == 2
    assert started[0].is_dead
    assert summary.failures == 0
    assert _all_ended_well(store)


def test_the_run_waits_for_a_real_server_whose_core_is_killed(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    command += ["--model", str(save_tiny_model(tmp_path / "tiny")), "--served-model-name", "tiny"]
    command += ["--port", str(port), "--dtype", "float32", "--max-num-seqs", "8"]
    command += ["--block-size", "32", "--enforce-eager", "--no-enable-chunked-prefill"]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    address = f"http://127.0.0.1:{port}"
    policy = {"model": "tiny", "base_url": f"{address}/v1", "max_retries": 0, "timeout_s": 60.0}
    store = tmp_path / "store"
    config = {
        "environment": {"class_path": "lit_qagent.environments.toy.ToyWorld"},
        "policy": {"class_path": "lit_qagent.policies.openai.OpenAIPolicy", "init_args": policy},
        "search": {"num_iterations": 8, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0},
        "sampling": {"max_tokens": 16},
        "store": str(store),
        "num_tasks": NUM_TASKS,
        "outage_patience_s": 1200.0,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))

    def server(name: str) -> AbstractContextManager["Popen[bytes]"]:
        return server_process(
            command,
            log=tmp_path / name,
            environment=environment,
            ready_url=f"{address}/health",
            limit_s=900,
        )

    with server("first.log") as first:
        collecting = _start_collecting(path)
        _wait_for_iterations(store, 12, limit_s=1800, process=collecting)
        _kill_engine_core(first.pid)
        limit = time.monotonic() + 60
        while first.poll() is None and time.monotonic() < limit:
            time.sleep(0.2)
        assert first.poll() is not None  # vLLM's server ends with its engine
    with server("second.log"):
        _, errors = collecting.communicate(timeout=900)
    assert collecting.returncode == 0, errors
    assert "asking again" in errors
    assert _all_ended_well(store)
