from __future__ import annotations

import pytest

from lipdub.config import PRESETS, load_config
from lipdub.evaluation.ablation import ROWS, row_of


def test_rows_are_told_by_their_settings_alone() -> None:
    assert row_of(load_config()) == ROWS[6]
    assert row_of(load_config(None, ["train.stage='2'"])) == ROWS[7]
    assert row_of(load_config(None, ["reference.augment=false"])) is None
    bare = [f"generator.{name}=false" for name in ("residual", "attention", "audio_skips", "mask_head")]
    assert row_of(load_config(None, ["reference.sampling=random", *bare])) == ROWS[0]
    assert row_of(load_config(None, ["reference.augment=false", *bare])) == ROWS[2]


@pytest.mark.parametrize("setting", ["generator.warp=true", "generator.shape_code=8", "train.stage='expert'"])
def test_what_the_thesis_has_not_is_no_row(setting: str) -> None:
    assert row_of(load_config(None, [setting])) is None


def test_presets_of_the_ablation_are_its_rows() -> None:
    presets = sorted((PRESETS / "ablation").glob("*.toml"))
    if not presets:
        pytest.skip("no presets ablation/*")
    stages = ["'1'"] * 7 + ["'2'"]
    found = [row_of(load_config(p, [f"train.stage={s}"])) for p, s in zip(presets, stages, strict=True)]
    assert found == list(ROWS)
