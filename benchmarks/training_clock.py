"""Time and memory of a step, counted alike on both sides of bench_training.py."""

import resource
import sys
import time
from typing import Any

import torch

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


class Stopwatch:
    """Wall and CPU seconds of a block; CPU seconds are what other work cannot change."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __enter__(self) -> "Stopwatch":
        self._wait()
        self._start = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self.wall_s = time.perf_counter() - self._start[0]
        self.cpu_s = time.process_time() - self._start[1]

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


def entry(num_pairs: int, clock: Stopwatch, counts: dict[str, int]) -> dict[str, Any]:
    return {"pairs": num_pairs, "cpu_s": clock.cpu_s, "wall_s": clock.wall_s, **counts}


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
