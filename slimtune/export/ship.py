"""From an adapter to what Ollama loads: merge, convert, Modelfile, and the proof that they agree."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import psutil

from slimtune import run_record
from slimtune.base_model import fetch, require_disk_space
from slimtune.errors import Problem, SlimtuneError, fail
from slimtune.export import gguf, merge, model_folder, modelfile, parity, quantise

GgufType = Literal["f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]

PARITY_ITEMS = 20
_PARITY_TOKENS = 4
_EXACT: tuple[GgufType, ...] = ("f16", "bf16")
# What llama.cpp's converter writes by itself; the others are quantised from bf16, the type that the weights have.
_CONVERTED: tuple[GgufType, ...] = ("f16", "bf16", "q8_0")
_SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True)
class Shipment:
    """What to export, and how. num_ctx: tokens of prompt and answer together in Ollama."""

    name: str
    ollama_name: str
    gguf_types: tuple[GgufType, ...]
    merge_base: Literal["dequantised", "16bit"]
    load_in_4bit: bool
    load_dtype: Literal["bfloat16", "float16", "float32"]
    parameters: int
    family: Literal["qwen2.5", "qwen3"]
    thinking: bool
    system: str | None
    num_ctx: int
    temperature: float


@dataclass(frozen=True)
class Golden:
    """A question as rendered for the model, and the token with which the tuned model began its answer.

    messages: {"role", "content"} that `prompt` was rendered from; empty in runs that did not record them.
    """

    id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    greedy_token: int
    messages: tuple[dict[str, str], ...] = ()


def sixteen_bit_base(base: str) -> Path:
    """The folder of the base's 16-bit twin, by Unsloth's name map; fetched where the cache does not have it.

    Raises SlimtuneError where the map knows no twin or the hub cannot be reached.
    """
    from slimtune import backend

    twin = backend.sixteen_bit_twin(base)
    if twin is None:
        raise fail(
            f"no 16-bit twin of '{base}' is known",
            where="export.merge_base",
            fix="merge with merge_base: dequantised, the very weights that were trained on",
        )
    return fetch(twin)


def ship(
    shipment: Shipment,
    *,
    adapter: Path,
    base: Path,
    chat_template: str,
    directory: Path,
    golden: Sequence[Golden],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write `directory`/merged, a GGUF for each type, Modelfile and parity.json; returns what was written, for the manifest.

    base: the folder whose weights the adapter is added to. chat_template: the training one. golden: questions that
    the export must answer as the merged model does.
    Raises SlimtuneError where the disk is too small, a step fails, or a GGUF is not the model that was judged; what
    was found is in parity.json then.
    """
    require_disk_space(directory, gguf.export_bytes(shipment.parameters, shipment.gguf_types), "the export")
    template = modelfile.bake_chat_template(chat_template, family=shipment.family, thinking=shipment.thinking)

    say("merging the adapter into 16-bit weights")
    merged = merge.merge_adapter(
        adapter,
        base,
        directory / "merged",
        merge_base=shipment.merge_base,
        load_in_4bit=shipment.load_in_4bit,
        load_dtype=shipment.load_dtype,
        chat_template=template,
    )
    files, quantised = _make_ggufs(shipment, directory, say)
    changes: list[str] = []
    if files:
        changes = modelfile.write_modelfile(
            directory / "Modelfile",
            gguf_name=next(iter(files.values())).name,
            family=shipment.family,
            thinking=shipment.thinking,
            system=shipment.system,
            num_ctx=shipment.num_ctx,
            temperature=shipment.temperature,
            chat_template=template,
        )
        for change in changes:
            say(f"Modelfile: {change}")
        _prove(directory, files, golden[:PARITY_ITEMS], say)
    return {
        "ollama_name": shipment.ollama_name,
        "merged": "export/merged",
        "merge": asdict(merged) | {"path": "export/merged"},
        "gguf": [path.name for path in files.values()],
        "quantised": quantised,
        "modelfile_changes": changes,
    }


def _make_ggufs(
    shipment: Shipment, directory: Path, say: Callable[[str], None]
) -> tuple[dict[GgufType, Path], dict[str, Any]]:
    """A file of each type, in the order asked for; and of those that were quantised, how."""
    files = {kind: directory / f"{shipment.name}.{kind}.gguf" for kind in shipment.gguf_types}
    for kind in _CONVERTED:
        if kind in files:
            say(f"converting to GGUF ({kind})")
            gguf.convert(directory / "merged", files[kind], outtype=cast(gguf.Outtype, kind), name=shipment.name)
    wanted = [kind for kind in files if kind not in _CONVERTED]
    if not wanted:
        return files, {}
    records: dict[str, Any] = {}
    # Under a name of its own, so that what a kill leaves is nobody's model; the next export of the folder takes it away.
    work = directory / ".work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        source = files.get("bf16")
        if source is None:
            say("converting to GGUF (bf16, to quantise from)")
            source = work / f"{shipment.name}.bf16.gguf"
            gguf.convert(directory / "merged", source, outtype="bf16", name=shipment.name)
        for kind in wanted:
            say(f"quantising ({kind})")
            record = quantise.quantise(source, files[kind], cast(quantise.Kind, kind))
            if record.fallbacks:
                say(
                    f"{kind}: the rows of {len(record.fallbacks)} tensors are no multiple of 256; they have "
                    "Q5_0, Q5_1 or Q8_0 instead, as llama.cpp does it"
                )
            records[kind] = asdict(record) | {"path": f"export/{files[kind].name}"}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return files, records


def _prove(directory: Path, files: dict[GgufType, Path], golden: Sequence[Golden], say: Callable[[str], None]) -> None:
    """Compare every GGUF with the merged model and write parity.json."""
    if not golden:
        run_record.write_json(
            directory / "parity.json", {"passed": None, "reason": "no evaluation questions to compare on"}
        )
        say("no parity check: the recipe evaluates no questions")
        return
    prompts = [item.prompt for item in golden]
    prompt_ids = [item.prompt_ids for item in golden]
    merged = directory / "merged"
    if _weights_bytes(merged) > _SHARE_OF_MEMORY * psutil.virtual_memory().available:
        # Too large to be loaded beside everything else: the adapter's own first tokens were recorded when it was judged.
        reference, length = "tuned model, first token", 1
        expected = [[item.greedy_token] for item in golden]
    else:
        reference, length = "merged model, greedy", _PARITY_TOKENS
        expected = parity.hf_greedy(merged, prompt_ids, length)
    say(f"comparing on {len(golden)} questions with the {reference}")
    conversations = [item.messages for item in golden] if all(item.messages for item in golden) else None
    checks: dict[str, Any] = {}
    problems: list[Problem] = []
    for kind, path in files.items():
        found = parity.check_gguf(
            path, prompts, expected, prompt_ids, max_new_tokens=length, conversations=conversations
        )
        checks[path.name] = asdict(found)
        problems += _unequal(found, exact=kind in _EXACT)
    passed = all(check["passed"] for check in checks.values())
    run_record.write_json(
        directory / "parity.json", {"passed": passed, "reference": reference, "questions": len(golden), "files": checks}
    )
    if problems:
        raise SlimtuneError(
            problems, summary="The exported model is not the one that was judged; see export/parity.json"
        )


def _unequal(found: parity.ParityRecord, *, exact: bool) -> list[Problem]:
    """What forbids an export. exact: the file holds the merged weights themselves, so that its answers must be equal.

    Blocks of 4 to 8 bits may flip a token between two about equally likely ones; that is reported, not an error.
    """
    total, problems = found.prompts, []
    if found.ids_equal < total:
        what = f"its tokenizer gives {total - found.ids_equal} of {total} prompts other ids than training"
        problems.append(Problem(what, found.gguf, _first(found, "prompt ids")))
    if found.templates_equal is not None and found.templates_equal < total:
        what = f"its template renders {total - found.templates_equal} of {total} questions otherwise than training"
        problems.append(Problem(what, found.gguf, _first(found, "template")))
    if exact and found.answers_equal < found.ids_equal:
        what = (
            f"it answers {found.ids_equal - found.answers_equal} of {total} questions otherwise than the merged model"
        )
        problems.append(Problem(what, found.gguf, _first(found, "answer")))
    return problems


def _first(found: parity.ParityRecord, what: str) -> str:
    one = next((difference for difference in found.differences if difference["what"] == what), None)
    if one is None:
        return ""
    return f"question {one['prompt'] + 1}, from place {one['position']}: {one['expected']} expected, {one['got']} there"


def parity_table(directory: Path) -> list[tuple[str, ...]]:
    """What parity.json holds, a line a file, heading first; empty where nothing was compared."""
    content = model_folder.read_json(directory / "parity.json") if (directory / "parity.json").is_file() else {}
    lines: list[tuple[str, ...]] = [("", "prompt ids", "template", "first tokens", "answers")]
    for name, check in content.get("files", {}).items():
        counts = (check[key] for key in ("ids_equal", "templates_equal", "first_tokens_equal", "answers_equal"))
        shown = ["not compared" if count is None else f"{count} of {check['prompts']} equal" for count in counts]
        lines.append((name, *shown))
    return lines if len(lines) > 1 else []


def _weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in model_folder.shard_paths(folder))
