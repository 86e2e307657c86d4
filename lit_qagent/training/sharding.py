"""FSDP2: the blocks of the LLM in shards over the processes; everything else on each of them.

Under Lightning's ``ModelParallelStrategy``. Embeddings, output layer, last norm and Q-head stay
whole: the output layer is applied to action positions only, outside of the model's own forward, and
the gradients of what is trained among them are averaged by `average_gradients`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_qagent.core.errors import ConfigError
from lit_qagent.models.backbone import Backbone

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel


def shard_backbone(backbone: Backbone, mesh: "DeviceMesh") -> None:
    """Put an LLM, and the copy that is its reference, into shards.

    Args:
        backbone: The LLM.
        mesh: Lightning's, of the dimensions ``data_parallel`` and ``tensor_parallel``.

    Raises:
        ConfigError: The tensors themselves are to be divided, or the model does not say what its
            blocks are.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ConfigError(
            "only data parallel shards are supported; set tensor_parallel_size of "
            "trainer.strategy to 1 and data_parallel_size to the number of devices"
        )
    shard(backbone.language_model, mesh["data_parallel"])
    if backbone.original is not None:
        shard(backbone.original, mesh["data_parallel"])


def shard(model: "PreTrainedModel", mesh: "DeviceMesh") -> None:
    """Put every block of a model into shards.

    Args:
        model: A causal language model, with or without an adapter's layers in it.
        mesh: One dimension: the processes that share the weights.

    Raises:
        ConfigError: The model does not say what its blocks are.
    """
    from torch.distributed.fsdp import fully_shard

    names = set(getattr(model, "_no_split_modules", None) or ())
    decoder: nn.Module = model.base_model
    blocks = [module for module in decoder.modules() if type(module).__name__ in names]
    if not blocks:
        raise ConfigError(
            f"{type(model).__name__} does not name its blocks, so it cannot be sharded; "
            "use trainer.strategy ddp, or another model"
        )
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    for block in blocks:
        fully_shard(block, mesh=mesh)
    rest = {p for p in decoder.parameters() if id(p) not in inside and not is_shard(p)}
    fully_shard(decoder, mesh=mesh, ignored_params=rest)


def is_shard(tensor: Tensor) -> bool:
    """Return whether this process has a part of a tensor only."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all processes, which must all ask for it."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process has."""
    part: Any = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def gathered(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole copies in main memory; all processes must ask for them."""
    return {name: whole(weight.detach()).to("cpu", copy=True) for name, weight in weights.items()}


def average_gradients(weights: Iterable[Tensor]) -> None:
    """Average the gradients of the weights that are not in shards; FSDP does the others."""
    import torch.distributed as dist

    for weight in weights:
        if weight.grad is not None and not is_shard(weight):
            dist.all_reduce(weight.grad)
            weight.grad /= dist.get_world_size()


def clip_gradients(weights: Iterable[Tensor], most: float, *, by_value: bool = False) -> None:
    """Clip gradients, some of weights in shards and some not, which torch's own do not take.

    Args:
        weights: On all processes; the gradients of whole ones are averaged already.
        most: The norm of all gradients together is scaled down to this.
        by_value: Limit each number to this instead.
    """
    import torch.distributed as dist

    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if by_value:
        for gradient in gradients:
            local(gradient).clamp_(-most, most)
        return
    squares = torch.zeros(2, device=gradients[0].device)  # of whole ones; of this process's shards
    for gradient in gradients:
        squares[int(is_shard(gradient))] += local(gradient).float().square().sum()
    dist.all_reduce(squares[1])
    scale = (most / (squares.sum().sqrt() + 1e-6)).clamp(max=1)  # as torch's clip_grad_norm_
    for gradient in gradients:
        local(gradient).mul_(scale)
