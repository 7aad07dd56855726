"""From an adapter to what Ollama loads: merge, convert, quantise, Modelfile, and the proof that they agree.

Everything is made beside its place and renamed once it is proven. What fails its proof stays as evidence.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

from slimtune.core import output_folders
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.files import write_json, write_lines, write_text
from slimtune.core.progress import Advance, OnProgress
from slimtune.data.chat_template import ChatTokenizer
from slimtune.export import folders, model_card
from slimtune.export.check import check_gguf
from slimtune.export.gguf import gguf
from slimtune.export.merge import merge
from slimtune.export.merge.merge import MergeRecord
from slimtune.export.modelfile import modelfile
from slimtune.export.modelfile.chat_templates import bake_chat_template
from slimtune.export.modelfile.modelfile_reader import compare, read_modelfile
from slimtune.export.proof import golden, merged_model, proof
from slimtune.export.shipment import Shipment
from slimtune.models import adapter_files
from slimtune.models.files import require_disk_space
from slimtune.recipe.names import GgufType, MergeBase, QuantisedType

# What llama.cpp's converter writes by itself; the others are quantised from bf16, the type that the weights have.
_CONVERTED: tuple[Literal["f16", "bf16", "q8_0"], ...] = ("f16", "bf16", "q8_0")
_MIB = 2**20


def ship(
    shipment: Shipment, directory: Path, on_progress: OnProgress, *, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make `directory`, replacing it whole: merged/, a GGUF for each type, Modelfile, golden.jsonl, parity.json.

    more: file names to functions that make a JSON file's content from what is returned. Returns what was written, for the
    manifest. Raises SlimtuneError if the disk is too small, a step fails, or the result is not the model that was judged
    (see `directory`.unverified/parity.json). `directory` then stays as it was.
    """
    adapter_files.check(shipment.adapter, shipment.base_folder)
    directory, outside = directory.resolve(), shipment.merged_folder
    twin, without_twin = shipment.sixteen_bit_base(on_progress)
    with contextlib.ExitStack() as opened:
        staged = opened.enter_context(
            output_folders.staged_folder(directory, what=folders.EXPORT, ours=folders.require_ours)
        )
        merged_folder = staged / "merged"
        if outside is not None:
            what = folders.merged_model_of(shipment.adapter)
            merged_folder = opened.enter_context(
                output_folders.staged_folder(outside, what=what, ours=folders.require_merged_ours)
            )
        made = _make(shipment, twin, staged, merged_folder, directory, on_progress)
        made |= {"without_16bit_twin": without_twin} if without_twin else {}
        for name, content in (more or {}).items():
            write_json(staged / name, content(made))
        # Both are looked at before either is replaced.
        folders.require_ours(directory)
        if outside is not None:
            folders.require_merged_ours(outside)
    return made


def _make(
    shipment: Shipment, twin: Path | None, staged: Path, merged_folder: Path, directory: Path, on_progress: OnProgress
) -> dict[str, Any]:
    """Fill the two folders and prove what is in them; returns what was written. directory: where it will be."""
    wanted = shipment.wanted
    needed = gguf.export_bytes(shipment.shape.total_parameters, wanted.gguf, 2 if wanted.merge_base == "auto" else 1)
    require_disk_space(staged, needed, "the export")

    template = bake_chat_template(shipment.chat_template, family=shipment.shape.family, thinking=shipment.thinking)
    merged, measured = _merge(shipment, twin, template, merged_folder, on_progress)
    if shipment.merged_folder:
        # It is complete, but in its place only at the end: this process still works on it.
        output_folders.mark(merged_folder, folders.merged_model_of(shipment.adapter))
    _write_card(shipment, merged_folder, on_progress)
    files, made = _make_ggufs(shipment, merged_folder, staged, on_progress)
    meant = {path: _meant(shipment, kind, template, made) for kind, path in files.items()}
    found = {path.name: check_gguf.metadata_problems(path, expected) for path, expected in meant.items()}
    if wanted.lora_gguf:
        on_progress.say("converting the adapter alone to GGUF")
        lora_file = staged / f"{shipment.name}.lora.gguf"
        made["lora_gguf"] = _record(gguf.convert_adapter(shipment.adapter, shipment.base_folder, lora_file))
    changes, found["Modelfile"] = _write_modelfile(shipment, files, template, staged, on_progress)
    subject = proof.Subject(
        shipment,
        merged=merged_folder,
        files={str(kind): path for kind, path in files.items()},
        found=found,
        # The template itself is in the file, and what is compared with it is training's.
        facts={path.name: {"metadata": expected | {"chat_template": "training's"}} for path, expected in meant.items()},
    )
    with _evidence_kept(staged, folders.unverified(directory)):
        served = proof.prove(staged, subject, on_progress)
    write_lines(staged / golden.FILE_NAME, [one.model_dump() for one in served])
    where = str(shipment.merged_folder or Path(directory.name, "merged"))
    return {
        "ollama_name": shipment.ollama_name,
        "merged": where,
        "merge": asdict(merged) | {"path": where} | ({"measured": measured} if measured else {}),
        "gguf": [path.name for path in files.values()],
        **made,
        "modelfile_changes": changes,
    }


@contextlib.contextmanager
def _evidence_kept(staged: Path, evidence: Path) -> Iterator[None]:
    """Give what fails its proof the name `evidence`, unless that holds something else by now."""
    try:
        yield
    except SlimtuneError as error:
        told = error
        if (staged / proof.FILE_NAME).is_file():
            with contextlib.suppress(SlimtuneError):
                output_folders.publish(staged, evidence, folders.require_ours)
                told = output_folders.as_if_at(error, staged, evidence)
        raise told from error.__cause__


# ---- merge -----------------------------------------------------------------------------------------------------------


def _merge(
    shipment: Shipment, twin: Path | None, template: str, merged_folder: Path, on_progress: OnProgress
) -> tuple[MergeRecord, dict[str, Any]]:
    """The merged folder; for "auto" also how far either base is from the adapter."""

    def merged(kind: MergeBase, folder: Path) -> MergeRecord:
        source = shipment.base_folder if kind == "dequantised" else twin
        assert source is not None  # Shipment.sixteen_bit_base has raised
        on_progress.say(f"merging the adapter into 16-bit weights ({kind} base)")
        with on_progress.bar("Merging, MiB") as bar:
            return merge.merge_adapter(
                shipment.adapter,
                source,
                folder,
                merge_base=kind,
                load_in_4bit=shipment.load_in_4bit,
                load_dtype=shipment.load_dtype,
                chat_template=template,
                on_progress=_in_mib(bar),
            )

    if shipment.wanted.merge_base != "auto":
        return merged(shipment.wanted.merge_base, merged_folder), {}
    first = merged("dequantised", merged_folder)
    if twin is None:
        return first, {}
    other_folder = output_folders.beside(shipment.merged_folder or merged_folder, "partial")
    try:
        second = merged("16bit", other_folder)
        measured: dict[str, Any] = {
            record.merge_base: _distance(folder, shipment)
            for record, folder in ((first, merged_folder), (second, other_folder))
        }
        chosen = min(measured, key=lambda kind: measured[kind]["distance"])  # the first of equals: what was trained on
        told = ", ".join(f"{kind} {found['distance']:.4g}" for kind, found in measured.items())
        on_progress.say(f"distance from the adapter in {next(iter(measured.values()))['of']}: {told}; {chosen} is kept")
        if chosen == "16bit":
            output_folders.publish(other_folder, merged_folder)
            return replace(second, path=str(merged_folder)), measured
        return first, measured
    finally:
        output_folders.discard(other_folder)


def _distance(folder: Path, shipment: Shipment) -> dict[str, Any]:
    """How far a merged model is from the adapter on the golden prompts, by the best measure recorded of it.

    Raises SlimtuneError where the machine lacks the memory to ask it.
    """
    golden = shipment.golden
    answers = merged_model.ask(folder, [one.prompt_ids for one in golden], 1, [one.reference_ids for one in golden])
    found = proof.beside_the_adapter(golden, answers, ChatTokenizer(folder))
    if found["letters"]:
        return found | {"distance": found["letters"]["mean"], "of": "letters' log-probability (mean, nats)"}
    if found["nll_per_token"]:
        return found | {"distance": found["nll_per_token"]["mean"], "of": "answers' likelihood (mean, nats a token)"}
    return found | {"distance": found["compared"] - found["first_tokens_equal"], "of": "other first tokens"}


# ---- files -----------------------------------------------------------------------------------------------------------


def _write_card(shipment: Shipment, merged_folder: Path, on_progress: OnProgress) -> None:
    """The merged folder's README.md, from which the converter takes what the GGUF says of itself."""
    if shipment.license is None:
        on_progress.say("the base states no licence, so the GGUF has none; set export.license to name it")
    card = model_card.model_card(
        shipment.name, base_model=shipment.base, license=shipment.license, languages=shipment.languages
    )
    output_folders.add(merged_folder, model_card.CARD)
    write_text(merged_folder / model_card.CARD, card)


def _meant(shipment: Shipment, kind: GgufType, template: str, made: dict[str, Any]) -> dict[str, Any]:
    """What a finished file must say of itself, tensor types among it."""
    return {
        "name": shipment.name,
        "base_model": shipment.base,
        "license": shipment.license,
        "languages": shipment.languages,
        "chat_template": template,
        "eos": check_gguf.end_of_turn(template),
        "tensor_types": [kind.upper()] if kind in _CONVERTED else made["quantised"][kind]["tensor_types"],
    }


def _make_ggufs(
    shipment: Shipment, merged_folder: Path, staged: Path, on_progress: OnProgress
) -> tuple[dict[GgufType, Path], dict[str, Any]]:
    """A file of each type, in the order asked for; and how each was made."""
    files = {kind: staged / f"{shipment.name}.{kind}.gguf" for kind in shipment.wanted.gguf}
    made: dict[str, Any] = {"converted": {}, "quantised": {}}

    def convert(kind: gguf.Outtype, path: Path, why: str = "") -> gguf.GgufRecord:
        on_progress.say(f"converting to GGUF ({kind}{why})")
        with on_progress.bar(f"Converting to {kind}, MiB") as bar:
            return gguf.convert(merged_folder, path, outtype=kind, name=shipment.name, on_progress=_in_mib(bar))

    for outtype in _CONVERTED:
        if outtype in files:
            made["converted"][outtype] = _record(convert(outtype, files[outtype]))
    wanted = [kind for kind in files if kind not in _CONVERTED]
    work = staged / ".work"
    source = files.get("bf16", work / f"{shipment.name}.bf16.gguf")
    if wanted and "bf16" not in files:
        convert("bf16", source, ", to quantise from")
    for kind in wanted:
        on_progress.say(f"quantising ({kind})")
        with on_progress.bar(f"Quantising to {kind}, MiB") as bar:
            quantised = gguf.quantise(source, files[kind], cast(QuantisedType, kind), on_progress=_in_mib(bar))
        if quantised.fallbacks:
            on_progress.say(
                f"{kind}: the rows of {len(quantised.fallbacks)} tensors are not a multiple of 256 values, so these "
                "tensors have Q5_0, Q5_1 or Q8_0, as in llama.cpp"
            )
        made["quantised"][kind] = _record(quantised)
    shutil.rmtree(work, ignore_errors=True)
    return files, made


def _write_modelfile(
    shipment: Shipment, files: dict[GgufType, Path], template: str, staged: Path, on_progress: OnProgress
) -> tuple[list[str], list[Problem]]:
    """The Modelfile of the first GGUF; what of it had to be changed, and what Ollama would read differently."""
    if not files:
        return [], []
    composed = modelfile.compose(
        gguf_name=next(iter(files.values())).name,
        family=shipment.shape.family,
        thinking=shipment.thinking,
        system=shipment.system,
        num_ctx=shipment.num_ctx,
        temperature=shipment.wanted.temperature,
        chat_template=template,
    )
    for change in composed.changes:
        on_progress.say(f"Modelfile: {change}")
    path = staged / "Modelfile"
    write_text(path, composed.text)
    return composed.changes, compare(read_modelfile(path.read_text(encoding="utf-8")), composed.meant)


def _in_mib(bar: Advance) -> Callable[[int, int], None]:
    return lambda done, total: bar(done // _MIB, total // _MIB)


def _record(step: Any) -> dict[str, Any]:
    """A step's record; the file's place is beside this export's other files."""
    return asdict(step) | {"path": Path(step.path).name}
