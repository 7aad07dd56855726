"""Names that people and nvidia-smi use."""

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.core.units import GIB, MIB
from slimtune.models import cards


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rtx3080", "rtx3080"),
        ("RTX 3080", "rtx3080"),
        ("NVIDIA GeForce RTX 3080", "rtx3080"),
        ("3080", "rtx3080"),
        ("4070ti_super", "rtx4070ti-super"),
        ("A100", "a100"),
        ("a100 80gb", "a100-80gb"),
        ("H200", "h200"),
    ],
)
def test_a_card_by_the_names_people_use(name, key):
    assert cards.find(name).key == key


def test_an_unknown_card_lists_the_known_ones():
    with pytest.raises(SlimtuneError, match=r"did you mean rtx4090\? use one of t4, rtx2060") as caught:
        cards.find("rtx4091")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("product", "mebibytes", "key"),
    [
        ("NVIDIA GeForce RTX 3080", 10240, "rtx3080"),
        ("NVIDIA GeForce RTX 3080", 12288, None),  # another chip
        ("NVIDIA GeForce RTX 3080 Ti", 12288, "rtx3080ti"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 10240, None),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 16376, "rtx4070ti-super"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80gb"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("Tesla T4", 15360, "t4"),
        ("Some Card", 8192, None),
    ],
)
def test_a_card_by_what_nvidia_smi_says(product, mebibytes, key):
    found = cards.recognise(product, mebibytes * MIB)
    assert (found.key if found else None) == key


def test_the_card_that_stands_for_a_size():
    assert [cards.typical(gb).key for gb in (6, 8, 10, 11, 12, 16, 24)] == [
        "rtx2060",
        "rtx3070",
        "rtx3080",
        "rtx3060",
        "rtx3060",
        "rtx4060ti",
        "rtx3090",
    ]
    assert cards.typical(1000).key == "h200"
    assert all(card.vram_gb * GIB > 0 and card.tflops > 0 and card.bandwidth > 1e11 for card in cards.CARDS.values())
