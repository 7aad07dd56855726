"""From an adapter to what Ollama loads: merge, convert, Modelfile, and the proof that they agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil

from slimtune.base_model import require_disk_space
from slimtune.errors import Problem, SlimtuneError
from slimtune.export import gguf, merge, modelfile, parity

_BYTES_PER_PARAMETER = {"f16": 2.0, "bf16": 2.0, "q8_0": 1.0625}
_ROOM_FOR_ANSWER = 512
_PARITY_TOKENS = 8


@dataclasses.dataclass(frozen=True)
class Golden:
    """A rendered prompt, its ids, and the letter that the tuned model chose for it."""

    prompt: str
    prompt_ids: tuple[int, ...]
    answer: str


def ship(
    *,
    adapter: Path,
    base: Path,
    directory: Path,
    name: str,
    gguf_types: Sequence[Literal["f16", "bf16", "q8_0"]],
    merge_base: Literal["dequantised", "16bit"],
    load_in_4bit: bool,
    parameters: int,
    family: Literal["qwen2.5", "qwen3"],
    thinking: bool,
    system: str | None,
    num_ctx: int,
    temperature: float,
    golden: Sequence[Golden],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write `directory`/merged, one GGUF a type, Modelfile and parity.json; returns what was written.

    base: the folder whose weights the adapter is added to (the trained base, or its 16-bit twin).
    parameters: of the model, for the disk check. golden: prompts that the export must answer as the tuned model.
    Raises SlimtuneError where the disk is too small, a step fails, or the GGUF is not the model that was judged; what
    was found stays in parity.json.
    """
    needed = parameters * (2.0 + sum(_BYTES_PER_PARAMETER[kind] for kind in gguf_types))
    require_disk_space(directory, int(needed * 1.05), "the export")

    say("Merging the adapter into 16-bit weights")
    merged = directory / "merged"
    merge_record = merge.merge_adapter(adapter, base, merged, merge_base=merge_base, load_in_4bit=load_in_4bit)
    template = merged / "chat_template.jinja"
    template.write_text(
        modelfile.bake_chat_template(template.read_text(encoding="utf-8"), family=family, thinking=thinking),
        encoding="utf-8",
    )

    files = []
    for kind in gguf_types:
        say(f"Converting to GGUF ({kind})")
        path = directory / f"{name}.{kind}.gguf"
        gguf.convert(merged, path, outtype=kind, name=name)
        files.append(path)
    changes = modelfile.write_modelfile(
        directory / "Modelfile",
        gguf_name=files[0].name,
        family=family,
        thinking=thinking,
        system=system,
        num_ctx=num_ctx + _ROOM_FOR_ANSWER,
        temperature=temperature,
    )

    say(f"Comparing the GGUF with the merged model on {len(golden)} prompts")
    checks = _compare(merged, files, golden)
    result = {"files": checks, "reference": "merged model" if _fits_memory(merged) else "tuned model's letters"}
    return {
        "merged": str(merged.relative_to(directory.parent)),
        "merge": dataclasses.asdict(merge_record),
        "gguf": [path.name for path in files],
        "modelfile": "Modelfile",
        "modelfile_changes": changes,
        "parity": result,
    }
