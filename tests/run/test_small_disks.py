"""A disk that another program fills at some point of a run: one sentence, and with room again the run goes on.

What checks the room before a run, an export or a checkpoint believes in it here. The disks are real, and so is ENOSPC.
"""

import pytest
from support.disks import small_disk
from support.short_run import differences

from slimtune.core.files import sha256_file

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95)
"""Of what a finished run holds."""


@pytest.fixture(scope="module")
def whole(runs):
    """A finished run with an export, and its bytes."""
    place = runs.place("whole")
    place.write_recipe(export={"gguf": ["f16"], "require_verdict": False})
    code, text = place.do()
    assert code == 0, text
    return place, sum(path.stat().st_size for path in place.outputs.rglob("*") if path.is_file())


def weights(place):
    return {path.name: sha256_file(path) for path in (place.run() / "export").glob("*.gguf")}


@pytest.mark.parametrize("share", SHARES)
def test_a_disk_that_is_full_at_any_point_is_one_sentence_and_the_run_goes_on(runs, whole, share):
    place = runs.place(f"share-{share}")
    place.write_recipe(export={"gguf": ["f16"], "require_verdict": False})
    place.outputs.mkdir()
    with small_disk(place.outputs, int(whole[1] * share)) as enlarge:
        code, text = place.do(fault="nobody_asks_for_space")
        print(code, text[-600:])
        assert code == 2, text
        assert any(one in text for one in ("No space left on device", "the disk is full", "as on a full disk"))
        assert text.count("error: ") == 1 and "Traceback" not in text and "defect" not in text
        enlarge()
        begun = (place.outputs / "short/latest").exists()
        code, text = place.do(*(["--resume", "auto"] if begun else []))
        assert code == 0, text
        assert differences(place.run(), runs.undisturbed) == []
        assert weights(place) == weights(whole[0]) != {}
