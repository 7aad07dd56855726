"""From a model's name on the command line to a target that answers: loads weights, starts llama.cpp, or asks a server.

The heavy libraries are imported where they are needed: a server is judged without torch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from slimtune.core import inputs, run_folder
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.files import sha256_file
from slimtune.evaluate.targets.target import Facts, Target
from slimtune.models import adapter_files
from slimtune.models import files as base_model
from slimtune.plan.memory import vram

if TYPE_CHECKING:
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.evaluate.targets.local_target import LocalTarget


@dataclass(frozen=True, slots=True)
class Spec:
    """kind, and where it is: a folder or file, a model's name (hub id, builtin:NAME), or a URL with `model`."""

    kind: Literal["run", "adapter", "model", "gguf", "api"]
    place: str
    model: str | None = None

    @property
    def slug(self) -> str:
        """A folder name for its results."""
        text = f"{self.place}-{self.model}" if self.model else self.place
        path = Path(text)
        if self.kind == "run":
            text = f"{path.resolve().parent.name}-{path.resolve().name}"
        elif self.kind == "adapter":
            text = "-".join([part for part in path.resolve().parts if part != "checkpoints"][-3:])
        elif self.kind == "gguf":
            text = path.name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[-80:]


def spec_of(text: str, model: str | None = None) -> Spec:
    """A run's folder, an adapter's, a model's (or its hub id, or builtin:NAME), a .gguf, or URL#MODEL.

    model: for a URL that does not name it. Raises SlimtuneError for anything else.
    """
    if text.startswith(("http://", "https://")):
        url, _, named = text.partition("#")
        if not _is_url(url):
            raise fail(
                f"'{url}' is not a valid URL", fix="write an address such as http://localhost:11434/v1#law-direct"
            )
        if not (named or model):
            raise fail("the name of the model is missing", where=text, fix=f"write {url}#MODEL, or add --model MODEL")
        return Spec("api", url, named or model)
    path = inputs.at(text)
    if path.suffix == ".gguf":
        if not inputs.is_file(path):
            raise fail("there is no such GGUF file", where=text, fix="name a file that exists")
        return Spec("gguf", str(path))
    if inputs.is_folder(path):
        if inputs.exists(path / "recipe.yaml") and inputs.exists(path / "manifest.json"):
            return Spec("run", str(path))
        if inputs.exists(path / "adapter_config.json"):
            return Spec("adapter", str(path))
        if inputs.exists(path / "config.json"):
            return Spec("model", str(path))
        fix = "name a folder with recipe.yaml and manifest.json, adapter_config.json, or config.json"
        raise fail("the folder is not a run, an adapter or a model", where=text, fix=fix)
    try:
        base_model.locate(text)
    except SlimtuneError as error:
        known = "a run's folder, an adapter's, a model's (or its hub id, or builtin:tiny-qwen3), a .gguf, or URL#MODEL"
        raise fail(error.problems[0].what, where=text, fix=f"name {known}") from None
    return Spec("model", text)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and bool(parts.netloc.encode("idna"))
    except ValueError:  # brackets or a port that are none, and names that no server has
        return False


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, where its own folder does not say so.

    load_in_4bit: None takes what the run's recipe says, else 4 bit for a model that is stored so, or that was tuned as
    an adapter. max_length: tokens of prompt and reply; None takes the run's max_seq_length, else 4096.
    vram_gb: the card as sold; None uses what the card has. thinking: None renders without, and asks a server for nothing.
    """

    load_in_4bit: bool | None = None
    max_length: int | None = None
    thinking: bool | None = None
    batch_size: int | None = None
    vram_gb: float | None = None
    timeout_seconds: float = 120.0


@dataclass
class Opened:
    """target: ready to be asked. adapted: whether it is a base model with an adapter on it, which can be taken off."""

    target: Target
    adapted: bool = False

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[Target]:
        """The same target as the base model, before tuning."""
        with self.local.model.disable_adapter():
            yield self.target

    @property
    def local(self) -> LocalTarget:
        """The target as the one kind that has a model in this process."""
        return cast("LocalTarget", self.target)


_ADAPTER_AGAIN = "get the adapter again from where it came"
_DEFAULT_LENGTH = 4096
_LOCAL_BATCH = 16
_SERVED_BATCH = 4


@contextlib.contextmanager
def open_target(spec: Spec, loading: Loading) -> Iterator[Opened]:
    """The target of a spec, closed afterwards. Raises SlimtuneError where it cannot be opened, saying what to do."""
    if spec.kind == "gguf":
        from slimtune.evaluate.targets import gguf_target

        opened = Opened(
            gguf_target.open_gguf(
                Path(spec.place),
                context_length=loading.max_length or _DEFAULT_LENGTH,
                batch_size=loading.batch_size or _SERVED_BATCH,
                thinking=loading.thinking,
            )
        )
    elif spec.kind == "api":
        from slimtune.evaluate.targets import api_target

        opened = Opened(
            api_target.open_api(
                spec.place,
                str(spec.model),
                api_key=api_target.api_key_for(spec.place),
                batch_size=loading.batch_size or _SERVED_BATCH,
                timeout=loading.timeout_seconds,
                thinking=loading.thinking,
            )
        )
    else:
        opened = open_local(spec, loading)
    with contextlib.closing(opened.target):
        yield opened


@dataclass(frozen=True)
class Weights:
    """Where a local model's parts are. adapters: name to folder, in order; empty for a model without one."""

    base: str
    revision: str | None
    adapters: dict[str, Path]
    load_in_4bit: bool
    max_length: int
    thinking: bool


def weights_of(spec: Spec, loading: Loading) -> Weights:
    """What a local spec consists of, without loading it."""
    place = Path(spec.place)
    base, revision, four_bit = spec.place, None, False
    length, thinking = _DEFAULT_LENGTH, bool(loading.thinking)
    adapters: dict[str, Path] = {}
    run = place if spec.kind == "run" else _run_of(place) if spec.kind == "adapter" else None
    if run:
        model = run_folder.read(run).section("model", *run_folder.MODEL)
        if not (run / "adapter" / "adapter_config.json").is_file():
            fix = "resume and finish it first: slimtune train … --resume"
            raise fail("the run has no adapter", where=spec.place, fix=fix)
        base, revision, four_bit = model["base"], model["revision"], model["load_in_4bit"]
        length, thinking = model["max_seq_length"], model["thinking"]
        adapters = {"default": run / "adapter" if spec.kind == "run" else place}
    elif spec.kind == "adapter":
        config = inputs.json_object(place / adapter_files.CONFIG)
        named, revision = config.get("base_model_name_or_path"), config.get("revision")
        if not isinstance(revision, str | None):
            raise fail("the base's revision in adapter_config.json is not text", where=spec.place, fix=_ADAPTER_AGAIN)
        if not isinstance(named, str) or not named:
            raise fail("adapter_config.json does not say which base it is for", where=spec.place, fix=_ADAPTER_AGAIN)
        base = named
        # A QLoRA adapter is a correction to the 4-bit weights that it was trained on.
        adapters, four_bit = {"default": place}, True
    return Weights(
        base=base,
        revision=revision,
        adapters=adapters,
        load_in_4bit=four_bit if loading.load_in_4bit is None else loading.load_in_4bit,
        max_length=loading.max_length or length,
        thinking=thinking,
    )


class AtHand(NamedTuple):
    """What a local target renders and encodes prompts with, and the tokens of prompt and reply that it takes."""

    tokenizer: ChatTokenizer
    max_length: int


def tokenizer_at_hand(spec: Spec, loading: Loading) -> AtHand | None:
    """None for what is not local, and for a base whose tokenizer is not on this machine yet."""
    if spec.kind in ("gguf", "api"):
        return None
    from slimtune.data.chat_template import ChatTokenizer

    weights = weights_of(spec, loading)
    folder = _with_tokenizer(weights, base_model.locate(weights.base, weights.revision))
    return AtHand(ChatTokenizer(folder, weights.thinking), weights.max_length) if folder else None


def _with_tokenizer(weights: Weights, base_folder: Path | None) -> Path | None:
    """The folder whose tokenizer is used: an adapter carries the one, with the template, that it was trained with."""
    folders = [*weights.adapters.values(), *([base_folder] if base_folder else [])]
    return next((folder for folder in folders if (folder / "tokenizer.json").is_file()), None)


def _run_of(adapter: Path) -> Path | None:
    """The run whose adapter or checkpoint this is: it says more of the base than an adapter does."""
    for folder in adapter.resolve().parents[:2]:
        if (folder / "recipe.yaml").is_file() and (folder / "adapter" / "adapter_config.json").is_file():
            return folder
    return None


def open_local(spec: Spec, loading: Loading, adapters: dict[str, Path] | None = None) -> Opened:
    """Load a run, an adapter or a model with Unsloth. adapters: these under their names, on the same base, instead of its own."""
    weights = weights_of(spec, loading)
    folder = base_model.fetch(weights.base, weights.revision)
    adapters = adapters or weights.adapters
    weights = replace(weights, adapters=adapters)
    for place in adapters.values():
        adapter_files.check(place, folder)

    from slimtune.models import backend  # heavy from here on: Unsloth comes first and patches what follows

    # isort: split
    import torch

    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.evaluate.targets.local_target import LocalTarget
    from slimtune.models import load as models

    limit = None if loading.vram_gb is None else vram.budget_bytes(loading.vram_gb)
    model, precision = models.load_to_ask(
        folder, load_in_4bit=weights.load_in_4bit, max_seq_length=weights.max_length, memory_limit_bytes=limit
    )
    for name, place in adapters.items():
        model = models.add_adapter(model, place, name)
    own = _with_tokenizer(weights, folder) or folder
    values = asdict(weights) | {"precision": str(precision).removeprefix("torch.")}
    del values["adapters"]  # named by their hashes
    hashes = {name: sha256_file(place / "adapter_model.safetensors") for name, place in adapters.items()}
    on_card = torch.cuda.is_available()
    target = LocalTarget(
        model,
        ChatTokenizer(own, weights.thinking),
        facts=Facts(spec.place, values | ({"adapter_sha256": hashes} if hashes else {})),
        precision=precision,
        batch_size=loading.batch_size or _LOCAL_BATCH,
        max_length=weights.max_length,
        memory_limit_bytes=limit or (torch.cuda.get_device_properties(0).total_memory if on_card else None),
        # Unsloth's CUDA forward has a decoding path of its own for a filled cache, which takes one token at a time.
        share_prefixes=not on_card,
        generating=backend.generating,
    )
    return Opened(target, adapted=bool(adapters))
