"""What is to be exported, how it was trained and what it answers: everything that an export needs to know."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.progress import OnProgress
from slimtune.export import model_card
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.questions import Questions
from slimtune.models import files, shapes
from slimtune.models.settings import TorchDtype
from slimtune.models.shapes import ModelShape
from slimtune.recipe.schema import ExportSection

ROOM_FOR_ANSWER = 512
"""Tokens that Ollama's context gets beyond the longest training example."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is to be made of a model, as far as it is known before training: preflight.py tells whether it can be.

    base: the base model as the recipe names it; base_folder: where its files are, None where they are on the hub alone.
    load_in_4bit, thinking, system, max_length (tokens) and chat_template (Jinja; None where it is on the hub): as in
    training. wanted: the recipe's export section, or what was asked for instead.
    """

    name: str
    base: str
    base_folder: Path | None
    load_in_4bit: bool
    thinking: bool
    system: str | None
    max_length: int
    chat_template: str | None
    wanted: ExportSection

    @cached_property
    def shape(self) -> ModelShape:
        return shapes.of_base(self.base, self.base_folder)

    @property
    def ollama_name(self) -> str:
        return self.wanted.ollama_name or self.name

    @property
    def num_ctx(self) -> int:
        """Tokens of prompt and answer together in Ollama, by default no more than the model has positions."""
        return self.wanted.num_ctx or min(self.max_length + ROOM_FOR_ANSWER, self.shape.max_position_embeddings)

    @property
    def license(self) -> str | None:
        """What is wished for, else what the base's own card states; None where neither does: no licence is made up."""
        return self.wanted.license or (model_card.licence_of(self.base_folder) if self.base_folder else None)

    @property
    def languages(self) -> list[str]:
        return self.wanted.languages or (model_card.languages_of(self.base_folder) if self.base_folder else [])

    @cached_property
    def merged_folder(self) -> Path | None:
        """Where the merged weights go; None: beside the rest."""
        return Path(self.wanted.merged).resolve() if self.wanted.merged else None

    @property
    def needs_twin(self) -> bool:
        """Whether merge_base wants 16-bit weights that the base itself does not hold."""
        if self.wanted.merge_base == "dequantised":
            return False
        if self.base_folder is None:
            return shapes.is_prequantised(self.base)
        return bool(files.read_config(self.base_folder).get("quantization_config"))

    def twin(self) -> str:
        """The repository of the base's 16-bit weights. Raises SlimtuneError where none is known."""
        twin = files.sixteen_bit_twin(self.base)
        if twin is None:
            fix = "use merge_base: dequantised, which merges into the weights that were trained on"
            raise fail(f"no 16-bit twin of '{self.base}' is known", where="export.merge_base", fix=fix)
        return twin


@dataclass(frozen=True, kw_only=True)
class Shipment(ExportRequest):
    """An adapter and what to make of it.

    adapter: its folder. load_dtype: as in training. golden: at least one prompt that the export must answer as the
    adapter does. questions: the verdict's, which each GGUF answers again; None for none.
    """

    base_folder: Path
    chat_template: str
    adapter: Path
    load_dtype: TorchDtype
    golden: Sequence[Golden]
    questions: Questions | None

    def sixteen_bit_base(self, on_progress: OnProgress) -> tuple[Path | None, str]:
        """The base's 16-bit weights where merge_base wants them, and why "auto" has to do without.

        16-bit weights that were quantised at load are their own. Raises SlimtuneError where "16bit" cannot be had.
        """
        if self.wanted.merge_base == "dequantised":
            return None, ""
        if not self.needs_twin:
            return self.base_folder, ""
        try:
            return files.fetch(self.twin()), ""
        except SlimtuneError as error:
            if self.wanted.merge_base == "16bit":
                raise
            why = error.problems[0].what
            told = f"there is nothing to compare it with ({why})"
            on_progress.warn(f"merge_base: auto keeps the dequantised base: {told}")
            return None, why
