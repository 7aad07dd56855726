"""What is to be exported, how it was trained and what it answers: everything that an export needs to know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimtune.core.errors import SlimtuneError
from slimtune.core.progress import OnProgress
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.questions import Questions
from slimtune.export.request import ExportRequest
from slimtune.models import files
from slimtune.models.settings import TorchDtype


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
