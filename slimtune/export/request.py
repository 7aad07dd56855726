"""What an export is asked to make, as far as it is known before training. No trained weight, and nothing heavy."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from slimtune.core import outputs
from slimtune.core.errors import fail
from slimtune.export import model_card
from slimtune.models import files, shapes
from slimtune.models.shapes import ModelShape
from slimtune.recipe.schema import ExportSection

ROOM_FOR_ANSWER = 512
"""Tokens that Ollama's context gets beyond the longest training example."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is to be made of a model, as far as it is known before training: preflight.py tells whether it can be.

    base: the base model as the recipe names it; base_folder: where its files are, None where they are on the hub alone.
    load_in_4bit, thinking, system, max_length (tokens) and chat_template (Jinja; None where it is on the hub): as in
    training. tokenizer_folder: whose tokenizer ships, None likewise. wanted: the recipe's export section, or what was asked for instead.
    """

    name: str
    base: str
    base_folder: Path | None
    load_in_4bit: bool
    thinking: bool
    system: str | None
    max_length: int
    chat_template: str | None
    tokenizer_folder: Path | None
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
        return outputs.named(self.wanted.merged, "export.merged") if self.wanted.merged else None

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
