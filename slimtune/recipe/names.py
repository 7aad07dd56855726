"""Names that recipes, the command line and the code share; nothing heavy is imported for them."""

from typing import Literal, get_args

KindName = Literal["multiple_choice", "perplexity", "generation"]
"""The kinds of evaluation; each is a file in evaluate/kinds."""
OwnLayout = Literal["input_output", "messages", "alpaca", "sharegpt"]
FormatName = Literal[OwnLayout, "instruction_response", "prompt_completion", "question_answer", "query_response"]
"""The layouts of training rows; data/formats reads them."""
Layout = Literal["openai", OwnLayout]
"""The layouts that datatools/exchange.py writes."""
QuantisedType = Literal["q8_0", "q6_k", "q5_k_m", "q4_k_m"]
GgufType = Literal["f16", "bf16", QuantisedType]
GGUF_TYPES: tuple[GgufType, ...] = get_args(GgufType)
"""The types of GGUF that an export can have; export/gguf makes them."""
MergeBase = Literal["dequantised", "16bit"]
"""What an adapter is merged into."""

LICENSE = r"[A-Za-z0-9][A-Za-z0-9.+_-]*"
"""Identifiers of licences as the hub lists them: apache-2.0, cc-by-4.0, other."""
LANGUAGE = r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*"
"""ISO 639 codes of languages: ja, en-GB."""


def misfit(kind: str, mode: str, permutations: int, votes: int) -> tuple[str, str]:
    """Which of an evaluation's settings does not fit the others, and why; ("", "") if all do."""
    choices = kind == "multiple_choice"
    if votes > 1 and not (choices and mode == "cot"):
        return "votes", "several votes need kind multiple_choice and mode cot, where replies differ"
    if permutations > 1 and not choices:
        return "permutations", f"kind {kind} has no choices to permute"
    if mode == "cot" and not choices:
        return "mode", "mode cot is for kind multiple_choice; a free reply is judged as a whole"
    return "", ""
