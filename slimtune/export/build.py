"""From an adapter to what Ollama loads: merge, convert, quantise, Modelfile, and the proof that they agree.

Everything is made in `<directory>.unverified` and gets its final place in one rename, when it is proven. What is found
wrong stays there, as evidence; so does what a kill leaves, until the next export takes it away.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from slimtune.core.console import Console
from slimtune.core.errors import Problem, fail
from slimtune.core.files import sync_path, write_lines, write_text
from slimtune.core.progress import Advance
from slimtune.data.chat_template import ChatTokenizer
from slimtune.export import model_card
from slimtune.export.check import check_gguf
from slimtune.export.gguf import gguf, lora_gguf, quantise
from slimtune.export.merge import merge
from slimtune.export.merge.merge import MergeBase, MergeRecord
from slimtune.export.modelfile import modelfile
from slimtune.export.modelfile.chat_templates import Family
from slimtune.export.modelfile.modelfile_reader import compare, read_modelfile
from slimtune.export.proof import merged_model, proof
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.proof import Reference, Subject
from slimtune.export.proof.questions import Questions
from slimtune.models import families
from slimtune.models.files import fetch, require_disk_space

GgufType = Literal["f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]

# What llama.cpp's converter writes by itself; the others are quantised from bf16, the type that the weights have.
_CONVERTED: tuple[GgufType, ...] = ("f16", "bf16", "q8_0")
_MIB = 2**20


@dataclass(frozen=True)
class Shipment:
    """What to export, and how. num_ctx: tokens of prompt and answer together in Ollama.

    base_model, license, languages: for the model card and the GGUF; a licence of None is not known, and not made up.
    merged_dir: where the merged weights go; None: beside the rest. lora_gguf: also the adapter alone.
    """

    name: str
    ollama_name: str
    gguf_types: tuple[GgufType, ...]
    merge_base: Literal["dequantised", "16bit", "auto"]
    load_in_4bit: bool
    load_dtype: Literal["bfloat16", "float16", "float32"]
    parameters: int
    family: Family
    thinking: bool
    system: str | None
    num_ctx: int
    temperature: float
    base_model: str
    license: str | None
    languages: tuple[str, ...]
    lora_gguf: bool = False
    merged_dir: Path | None = None


def sixteen_bit_base(base: str) -> Path:
    """The folder of the base's 16-bit twin, by Unsloth's name map; fetched where the cache does not have it.

    Raises SlimtuneError where the map knows no twin or the hub cannot be reached.
    """
    from slimtune.models import backend

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
    twin: Path | None,
    chat_template: str,
    directory: Path,
    golden: Sequence[Golden],
    asked: Questions | None,
    console: Console,
) -> dict[str, Any]:
    """Make `directory`, which is replaced whole, with merged/, a GGUF for each type, Modelfile, golden.jsonl, parity.json.

    base: the folder that was trained on. twin: the base's 16-bit weights, for merge_base "16bit" and "auto".
    chat_template: the training one. golden: at least one prompt that the export must answer as the tuned model did.
    asked: the verdict's questions that every GGUF answers again. Returns what was written, for the manifest.
    Raises SlimtuneError where the disk is too small, a step fails, or what was made is not the model that was judged;
    what was found is in `directory`.unverified/parity.json then, and `directory` as it was.
    """
    if shipment.merged_dir:
        model_card.require_own(shipment.merged_dir, "export.merged")
    staged = unverified(directory)
    merged_dir = unverified(shipment.merged_dir) if shipment.merged_dir else staged / "merged"
    for leftover in {staged, merged_dir}:
        shutil.rmtree(leftover, ignore_errors=True)
    staged.mkdir(parents=True)
    merges = 2 if shipment.merge_base == "auto" else 1
    require_disk_space(staged, gguf.export_bytes(shipment.parameters, shipment.gguf_types, merges), "the export")

    template = modelfile.bake_chat_template(chat_template, family=shipment.family, thinking=shipment.thinking)
    merged, measured = _merge(shipment, adapter, base, twin, template, merged_dir, golden, console)
    _write_card(shipment, merged_dir, console)
    files, made = _make_ggufs(shipment, merged_dir, staged, console)
    meant = {path: _meant(shipment, kind, template, made) for kind, path in files.items()}
    problems = {
        path.name: [replace(problem, where=path.name) for problem in check_gguf.metadata_problems(path, expected)]
        for path, expected in meant.items()
    }
    # The template is in the file, and what is compared with it is training's.
    facts = {path.name: {"metadata": {**expected, "chat_template": "training's"}} for path, expected in meant.items()}
    if shipment.lora_gguf:
        console.say("converting the adapter alone to GGUF")
        made["lora_gguf"] = _record(lora_gguf.convert(adapter, base, staged / f"{shipment.name}.lora.gguf"))
    changes, problems["Modelfile"] = _write_modelfile(shipment, files, template, staged, console)
    named = {str(kind): path for kind, path in files.items()}
    subject = Subject(merged_dir, named, chat_template, shipment.thinking, facts)
    reference = proof.prove(staged, subject, golden, asked, problems, console)
    write_lines(staged / "golden.jsonl", _golden_rows(golden, reference, merged_dir, shipment.thinking))
    if shipment.merged_dir:
        publish(merged_dir, shipment.merged_dir)
    publish(staged, directory)
    where = shipment.merged_dir or Path(directory.name, "merged")
    return {
        "ollama_name": shipment.ollama_name,
        "merged": str(where),
        "merge": asdict(merged) | {"path": str(where)} | ({"measured": measured} if measured else {}),
        "gguf": [path.name for path in files.values()],
        **made,
        "modelfile_changes": changes,
    }


def unverified(directory: Path) -> Path:
    """Where an export is made until it is proven."""
    return directory.with_name(f"{directory.name}.unverified")


def publish(staged: Path, directory: Path) -> None:
    """Give a folder its final name, in place of an older one, which is whole until then."""
    old = directory.with_name(f"{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    for path in staged.rglob("*"):
        if path.is_file():
            sync_path(path)
    if directory.exists():
        directory.replace(old)
    staged.replace(directory)
    sync_path(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


# ---- merge -----------------------------------------------------------------------------------------------------------


def _merge(
    shipment: Shipment,
    adapter: Path,
    base: Path,
    twin: Path | None,
    template: str,
    merged_dir: Path,
    golden: Sequence[Golden],
    console: Console,
) -> tuple[MergeRecord, dict[str, Any]]:
    """The merged folder; for "auto" also how far either base is from the adapter."""

    def merged(kind: MergeBase, folder: Path) -> MergeRecord:
        source = base if kind == "dequantised" else twin
        if source is None:
            raise ValueError("a 16-bit merge needs the base's 16-bit twin")
        console.say(f"merging the adapter into 16-bit weights ({kind} base)")
        with console.bar("Merging, MiB") as progress:
            return merge.merge_adapter(
                adapter,
                source,
                folder,
                merge_base=kind,
                load_in_4bit=shipment.load_in_4bit,
                load_dtype=shipment.load_dtype,
                chat_template=template,
                on_progress=_in_mib(progress),
            )

    if shipment.merge_base != "auto":
        return merged(shipment.merge_base, merged_dir), {}
    first = merged("dequantised", merged_dir)
    if twin is None:
        return first, {}
    other_dir = unverified(merged_dir.with_name(f"{merged_dir.name}-16bit"))
    shutil.rmtree(other_dir, ignore_errors=True)
    try:
        second = merged("16bit", other_dir)
        measured: dict[str, Any] = {
            record.merge_base: _distance(folder, golden)
            for record, folder in ((first, merged_dir), (second, other_dir))
        }
        chosen = min(measured, key=lambda kind: measured[kind]["distance"])  # the first of equals: what was trained on
        told = ", ".join(f"{kind} {found['distance']:.4g}" for kind, found in measured.items())
        console.say(f"distance from the adapter in {next(iter(measured.values()))['of']}: {told}; {chosen} is kept")
        if chosen == "16bit":
            shutil.rmtree(merged_dir)
            other_dir.replace(merged_dir)
            return replace(second, path=str(merged_dir)), measured
        return first, measured
    finally:
        shutil.rmtree(other_dir, ignore_errors=True)


def _distance(folder: Path, golden: Sequence[Golden]) -> dict[str, Any]:
    """How far a merged model is from the adapter on the held-out golden prompts, by the best measure recorded of it.

    Raises SlimtuneError where the machine has no memory to ask it.
    """
    answers = merged_model.ask(folder, [item.prompt_ids for item in golden], 1, [item.reference_ids for item in golden])
    found = proof.beside_the_adapter(golden, answers, ChatTokenizer(folder))
    if found["letters"]:
        return found | {"distance": found["letters"]["mean"], "of": "letters' log-probability (mean, nats)"}
    if found["nll_per_token"]:
        return found | {"distance": found["nll_per_token"]["mean"], "of": "answers' likelihood (mean, nats a token)"}
    return found | {"distance": found["compared"] - found["first_tokens_equal"], "of": "other first tokens"}


# ---- files -----------------------------------------------------------------------------------------------------------


def _write_card(shipment: Shipment, merged_dir: Path, console: Console) -> None:
    """The merged folder's README.md, from which the converter takes what the GGUF says of itself."""
    if shipment.license is None:
        console.say("the base states no licence, so the GGUF has none; export.license names it")
    card = model_card.model_card(
        shipment.name, base_model=shipment.base_model, license=shipment.license, languages=shipment.languages
    )
    write_text(merged_dir / model_card.CARD, card)


def _meant(shipment: Shipment, kind: GgufType, template: str, made: dict[str, Any]) -> dict[str, Any]:
    """What a finished file must say of itself, tensor types among it."""
    return {
        "name": shipment.name,
        "base_model": shipment.base_model,
        "license": shipment.license,
        "languages": shipment.languages,
        "chat_template": template,
        "eos": check_gguf.end_of_turn(template),
        "tensor_types": [kind.upper()] if kind in _CONVERTED else made["quantised"][kind]["tensor_types"],
    }


def _make_ggufs(
    shipment: Shipment, merged_dir: Path, staged: Path, console: Console
) -> tuple[dict[GgufType, Path], dict[str, Any]]:
    """A file of each type, in the order asked for; and how each was made."""
    files = {kind: staged / f"{shipment.name}.{kind}.gguf" for kind in shipment.gguf_types}
    made: dict[str, Any] = {"converted": {}, "quantised": {}}

    def convert(kind: str, path: Path, why: str = "") -> gguf.GgufRecord:
        console.say(f"converting to GGUF ({kind}{why})")
        with console.bar(f"Converting to {kind}, MiB") as progress:
            outtype = cast(gguf.Outtype, kind)
            return gguf.convert(merged_dir, path, outtype=outtype, name=shipment.name, on_progress=_in_mib(progress))

    for kind in _CONVERTED:
        if kind in files:
            made["converted"][kind] = _record(convert(kind, files[kind]))
    wanted = [kind for kind in files if kind not in _CONVERTED]
    if not wanted:
        return files, made
    work = staged / ".work"
    source = files.get("bf16")
    if source is None:
        source = work / f"{shipment.name}.bf16.gguf"
        convert("bf16", source, ", to quantise from")
    for kind in wanted:
        console.say(f"quantising ({kind})")
        with console.bar(f"Quantising to {kind}, MiB") as progress:
            quantised = quantise.quantise(source, files[kind], cast(quantise.Kind, kind), on_progress=_in_mib(progress))
        if quantised.fallbacks:
            console.say(
                f"{kind}: the rows of {len(quantised.fallbacks)} tensors are no multiple of 256; they have "
                "Q5_0, Q5_1 or Q8_0 instead, as llama.cpp does it"
            )
        made["quantised"][kind] = _record(quantised)
    shutil.rmtree(work, ignore_errors=True)
    return files, made


def _write_modelfile(
    shipment: Shipment, files: dict[GgufType, Path], template: str, staged: Path, console: Console
) -> tuple[list[str], list[Problem]]:
    """The Modelfile of the first GGUF; what of it had to be changed, and what Ollama would read otherwise than meant."""
    if not files:
        return [], []
    composed = modelfile.compose(
        gguf_name=next(iter(files.values())).name,
        family=shipment.family,
        thinking=shipment.thinking,
        system=shipment.system,
        num_ctx=shipment.num_ctx,
        temperature=shipment.temperature,
        chat_template=template,
    )
    for change in composed.changes:
        console.say(f"Modelfile: {change}")
    path = staged / "Modelfile"
    modelfile.write(path, composed)
    return composed.changes, compare(read_modelfile(path.read_text(encoding="utf-8")), composed.expected)


def _golden_rows(
    golden: Sequence[Golden], reference: Reference, merged_dir: Path, thinking: bool
) -> list[dict[str, Any]]:
    """golden.jsonl: prompts with the merged model's answers, for whoever serves the model and wants to know."""
    tokenizer = ChatTokenizer(merged_dir)
    ends = {tokenizer.token_id(token) for token in families.end_tokens()}
    rows = []
    for item, answer in zip(golden, reference.answers, strict=True):
        if not item.messages:
            continue
        ended = bool(answer.ids) and answer.ids[-1] in ends
        rows.append(
            {
                "id": item.id,
                "messages": [dict(message) for message in item.messages],
                "answer": tokenizer.decode(answer.ids[:-1] if ended else answer.ids),
                "max_new_tokens": reference.length,
                "ended": ended,
                "thinking": thinking,
            }
        )
    return rows


def _in_mib(progress: Advance) -> Callable[[int, int], None]:
    return lambda done, total: progress(done // _MIB, total // _MIB)


def _record(step: Any) -> dict[str, Any]:
    """A step's record; the file's place is beside this export's other files."""
    return asdict(step) | {"path": Path(step.path).name}


def require_free(directory: Path, *, fresh: bool) -> None:
    """Raise SlimtuneError where `directory` holds an export and is not to be made afresh, or holds something else."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not (directory / proof.FILE_NAME).is_file():
        raise fail(
            "there is something else in this folder", where=str(directory), fix="name one that does not exist yet"
        )
    if not fresh:
        raise fail("there is an export already", where=str(directory), fix="--fresh replaces it")
