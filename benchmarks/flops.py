"""Floating-point operations that training a model needs, and the share of a device's peak.

Counted are those of the mathematics, for tokens that are there (padding and recomputed layers are
not counted), with 2 operations for a multiplication and an addition:

    layers     4 W a token: forward 2 W, and 2 W for the gradient of the input; the weights W of
               the decoder's linear layers are frozen, so they have no gradient
    adapter    6 A a token: forward 2 A, backward 4 A, as its weights A are trained
    attention  12 L H D a visible cell (a token and one that it sees): forward two products of
               D numbers in L layers and H heads, backward four
    output     4 E V a scored token: E hidden numbers, V words, frozen

    utilisation = operations / (seconds * peak operations a second)
"""

from dataclasses import dataclass

# Dense matrix products in bfloat16, 1e12 a second, as the makers give them; first match counts.
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
}


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What the operations depend on.

    Attributes:
        layer_weights: W, of the linear layers between embedding and output layer.
        adapter_weights: A.
        layers: L.
        heads: H, of queries.
        head_size: D.
        hidden_size: E.
        words: V.
    """

    layer_weights: int
    adapter_weights: int
    layers: int
    heads: int
    head_size: int
    hidden_size: int
    words: int


def step_flops(size: ModelSize, *, tokens: int, cells: int, scored: int) -> float:
    """Return the operations of a forward and a backward pass."""
    linear = tokens * (4 * size.layer_weights + 6 * size.adapter_weights)
    attention = cells * 12 * size.layers * size.heads * size.head_size
    output = scored * 4 * size.hidden_size * size.words
    return float(linear + attention + output)


def utilisation(flops: float, seconds: float, peak_tflops: float) -> float:
    """Return the share of the peak."""
    return flops / (seconds * peak_tflops * 1e12)


def peak_of(device_name: str) -> float | None:
    """Return the peak of a device by its name, None if it is not known."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_name), None)
