"""The type of numbers that this machine computes fast."""

from typing import Final

AUTO: Final = "auto"
_NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # in the words of torch


def resolve_dtype(dtype: str) -> str:
    """Return the type that ``auto`` stands for here; any other name is returned as it is.

    ``auto`` is bfloat16 on a GPU and on CPUs that have instructions for it, else float32: a CPU
    without them emulates bfloat16, which takes two to five times as long. The result is what
    belongs into settings and checkpoints, as it changes the numbers.
    """
    if dtype != AUTO:
        return dtype
    import torch

    return "bfloat16" if torch.cuda.is_available() or _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 numbers without emulation."""
    import torch

    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in _NATIVE)
