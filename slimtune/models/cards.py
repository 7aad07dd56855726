"""The graphics cards that you can plan for without having them: memory, arithmetic peak, bandwidth.

Figures are the makers' data sheets: dense bf16 (fp16 before Ampere) tensor operations with fp32 accumulation, which
is half of the figure with fp16 accumulation on GeForce cards (not on others), and never the one "with sparsity".
"""

import difflib
import re
from dataclasses import dataclass

from slimtune.core.errors import fail


@dataclass(frozen=True)
class Card:
    """key: as written after --gpu. vram_gb: as sold. tflops: 10¹² operations a second. bandwidth: bytes a second."""

    key: str
    name: str
    vram_gb: float
    compute_capability: tuple[int, int]
    tflops: float
    bandwidth: float


_AMPERE, _ADA, _HOPPER, _BLACKWELL = (8, 6), (8, 9), (9, 0), (12, 0)

CARDS: dict[str, Card] = {
    key: Card(key, name, vram_gb, capability, tflops, gigabytes * 1e9)
    for key, name, vram_gb, capability, tflops, gigabytes in [
        ("t4", "Tesla T4", 16, (7, 5), 65.0, 320),
        ("rtx2060", "GeForce RTX 2060", 6, (7, 5), 25.8, 336),
        ("rtx2080ti", "GeForce RTX 2080 Ti", 11, (7, 5), 53.8, 616),
        ("rtx3060", "GeForce RTX 3060", 12, _AMPERE, 25.6, 360),
        ("rtx3060ti", "GeForce RTX 3060 Ti", 8, _AMPERE, 32.4, 448),
        ("rtx3070", "GeForce RTX 3070", 8, _AMPERE, 40.6, 448),
        ("rtx3080", "GeForce RTX 3080", 10, _AMPERE, 59.5, 760),
        ("rtx3080ti", "GeForce RTX 3080 Ti", 12, _AMPERE, 68.2, 912),
        ("rtx3090", "GeForce RTX 3090", 24, _AMPERE, 71.2, 936),
        ("rtxa4000", "RTX A4000", 16, _AMPERE, 76.7, 448),
        ("rtxa5000", "RTX A5000", 24, _AMPERE, 111.1, 768),
        ("rtxa6000", "RTX A6000", 48, _AMPERE, 154.8, 768),
        ("a10", "A10", 24, _AMPERE, 125.0, 600),
        ("a10g", "A10G", 24, _AMPERE, 70.0, 600),
        ("a100", "A100", 40, (8, 0), 312.0, 1555),
        ("a100-80gb", "A100 80GB", 80, (8, 0), 312.0, 2039),
        ("rtx4060", "GeForce RTX 4060", 8, _ADA, 30.2, 272),
        ("rtx4060ti", "GeForce RTX 4060 Ti", 16, _ADA, 44.1, 288),
        ("rtx4070", "GeForce RTX 4070", 12, _ADA, 58.3, 504),
        ("rtx4070ti-super", "GeForce RTX 4070 Ti SUPER", 16, _ADA, 88.2, 672),
        ("rtx4080", "GeForce RTX 4080", 16, _ADA, 97.5, 717),
        ("rtx4090", "GeForce RTX 4090", 24, _ADA, 165.2, 1008),
        ("l4", "L4", 24, _ADA, 121.0, 300),
        ("l40s", "L40S", 48, _ADA, 362.0, 864),
        ("rtx5060ti", "GeForce RTX 5060 Ti", 16, _BLACKWELL, 47.4, 448),
        ("rtx5070", "GeForce RTX 5070", 12, _BLACKWELL, 61.7, 672),
        ("rtx5080", "GeForce RTX 5080", 16, _BLACKWELL, 112.6, 960),
        ("rtx5090", "GeForce RTX 5090", 32, _BLACKWELL, 209.5, 1792),
        ("h100", "H100", 80, _HOPPER, 989.0, 3350),
        ("h200", "H200", 141, _HOPPER, 989.0, 4800),
    ]
}

# The card that stands for "a card with N GB": what most people have who have that much, none faster than usual.
_TYPICAL = [
    "rtx2060", "rtx3070", "rtx3080", "rtx3060", "rtx4060ti", "rtx3090", "rtx5090", "rtxa6000", "a100-80gb", "h200",
]  # fmt: skip


def find(name: str) -> Card:
    """The card of a name as people write it: "rtx3080", "RTX 3080", "3080". Raises SlimtuneError for an unknown one."""
    wanted = re.sub(r"(nvidia|geforce|[\s_])", "", name.lower())
    plain = {key.replace("-", ""): card for key, card in CARDS.items()}
    for key in (wanted.replace("-", ""), f"rtx{wanted.replace('-', '')}"):
        if key in plain:
            return plain[key]
    near = difflib.get_close_matches(wanted, CARDS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise fail(f"unknown card '{name}'", where="--gpu", fix=f"{hint}use one of {', '.join(CARDS)}")


def typical(vram_gb: float) -> Card:
    """The card that stands for one sold with `vram_gb`: the smallest of a short list with at least as much memory."""
    return next((CARDS[key] for key in _TYPICAL if CARDS[key].vram_gb >= vram_gb), CARDS[_TYPICAL[-1]])


def recognise(product: str, memory_bytes: int) -> Card | None:
    """The card with nvidia-smi's product name and memory; the "NVIDIA GeForce RTX 3080" with 12 GB is another chip."""
    words = re.sub(r"[^a-z0-9]+", " ", product.lower().replace("nvidia", "").replace("geforce", "")).split()
    for card in sorted(CARDS.values(), key=lambda card: -len(card.name)):
        named = re.sub(r"[^a-z0-9]+|geforce|\d+gb", " ", card.name.lower()).split()
        same_size = abs(memory_bytes / 2**30 / card.vram_gb - 1) < 0.12
        if same_size and words[: len(named)] == named and not {"ti", "super", "laptop"} & set(words[len(named) :]):
            return card
    return None
