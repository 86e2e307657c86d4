"""The base LLM: loaded, quantised, and refused where it computes what cannot be followed.

The only module that knows bitsandbytes; it is imported when a model is built.
"""

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_qagent.core.errors import MissingPackage, ModelError
from lit_qagent.models.attention import BRANCH_ATTENTION, register_branch_attention
from lit_qagent.models.rope import turn_by_own_length
from lit_qagent.models.specs import BackboneSpec
from lit_qagent.policies.pretrained import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PROBE_IDS = (0, 1, 2, 3)
# How configurations name it.
_NOISE = ("dropout", "dropout_prob", "dropout_rate", "pdrop", "layerdrop", "jitter_noise")

_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


def decode(model: "PreTrainedModel", **inputs: Any) -> Tensor:  # noqa: ANN401 (models differ)
    """Run a causal language model without its output layer; returns [R, T, H]."""
    hidden: Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden


def output_layer(model: "PreTrainedModel") -> nn.Module:
    """Return the layer from hidden states to logits."""
    layer: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return layer


def load_base_model(spec: BackboneSpec) -> "PreTrainedModel":
    """Load an LLM.

    Raises:
        ModelError: The model cannot be found, read, or used.
        MissingPackage: bitsandbytes is needed and not installed.
    """
    from transformers import AutoConfig

    name = resolve_model(spec.name)
    try:
        config = AutoConfig.from_pretrained(name, revision=spec.revision)
        _switch_noise_off(config)
        model = _load(spec, name, config)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"model {spec.name!r} cannot be loaded as {spec} ({error}); "
            "give the folder or hub id of a causal language model, or change the setting named"
        ) from error
    _switch_layers_off(model)
    turn_by_own_length(model)
    model.train()  # see Backbone.train
    _check_output_layer(model, spec.name)
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def attention_of(model: "PreTrainedModel") -> str:
    """Return the name under which transformers knows a model's attention."""
    name: str = model.config.get_text_config()._attn_implementation
    return name


def _load(spec: BackboneSpec, name: str, config: Any) -> "PreTrainedModel":  # noqa: ANN401
    """Load with the attention asked for; with eager attention where ours cannot be put in."""
    from transformers import AutoModelForCausalLM

    def load(attention: str) -> "PreTrainedModel":
        return AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            revision=spec.revision,
            dtype=_DTYPES[spec.dtype],
            attn_implementation=attention,
            quantization_config=_quantization(spec),
        )

    if spec.attention != "sdpa":
        return load(spec.attention)
    if _knows_sdpa(config):
        try:
            return load(register_branch_attention())
        except KeyError as error:  # Falcon looks classes of its own up by the name
            if error.args != (BRANCH_ATTENTION,):
                raise
    _log.warning(
        "%s takes no attention but its own (attention sinks, or layers that transformers gives no "
        "choice), so it runs with backbone.attention eager: a row is shared by a dense mask if it "
        "heeds one, else not at all",
        spec.name,
    )
    return load("eager")


def _knows_sdpa(config: Any) -> bool:  # noqa: ANN401
    """Whether a model computes the same by scaled_dot_product_attention, as its class says.

    Others would call it without their sinks, or not at all but with a mask made for it.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return bool(
        getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "_supports_sdpa", True)
    )


def _quantization(spec: BackboneSpec) -> Any:  # noqa: ANN401 (a lazily imported class)
    """Return how transformers shall quantise, or None."""
    if spec.quantization == "none":
        return None
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise MissingPackage(
            f"quantization {spec.quantization!r} needs bitsandbytes, which is not installed; "
            "pip install bitsandbytes, or set quantization to none"
        )
    if spec.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=_DTYPES[spec.dtype],
    )


def _switch_noise_off(settings: Any) -> None:  # noqa: ANN401 (any model's configuration)
    """Make training and scoring the same function; with dropout the reference would be random.

    Args:
        settings: A configuration or a dict of one; those inside it are gone through too.
    """
    values: dict[str, Any] = settings if isinstance(settings, dict) else vars(settings)
    for name, value in list(values.items()):
        if isinstance(value, dict) or hasattr(value, "model_type"):
            _switch_noise_off(value)
        elif str(name).endswith(_NOISE) and isinstance(value, float) and value > 0:
            _log.info("%s of the base model is %s, set to 0", name, value)
            values[name] = 0.0


def _switch_layers_off(model: nn.Module) -> None:
    """Switch off dropout whose setting has another name, or is none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            _log.info("dropout of %s in the base model is %s, set to 0", name, module.p)
            module.p = 0.0


@torch.no_grad()
def _check_output_layer(model: "PreTrainedModel", name: str) -> None:
    """Refuse models that change logits after the output layer, such as by soft-capping.

    Small logits do not reveal a cap, so the configuration is asked too.
    """
    settings = model.config.get_text_config()
    cap = next((c for key in _CAPS if (c := getattr(settings, key, None)) is not None), None)
    ids = torch.tensor([_PROBE_IDS], device=model.device)
    whole = model(input_ids=ids, use_cache=False).logits.float()
    ours = output_layer(model)(decode(model, input_ids=ids)).float()
    if cap is not None or not torch.allclose(whole, ours, rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"model {name!r} changes its logits after the output layer (soft-capping or scaling), "
            "which is not supported; use another model"
        )
