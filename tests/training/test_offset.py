"""What the expert makes of a source's sound, and what `prepare` does about it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lipdub.config import Config, load_config
from lipdub.data.offset import ENOUGH_S, FOREIGN, SURE, offset_similarities, source_offset
from lipdub.data.store import RATE
from lipdub.models.expert import Expert

SHIFTS = 31  # from -15 to 15 frames


def rows(seconds: float, strength: float, shift: int = 0) -> np.ndarray:
    """Similarities of a source whose best shift stands out by what gives the given strength."""
    made = np.full((round(seconds * RATE), SHIFTS), 0.3)
    made[:, 15 + shift] += strength / np.sqrt(seconds / 4)
    return made


def test_a_clear_offset_is_believed_over_all_clips_of_a_source() -> None:
    told = source_offset([rows(2.0, 0.3, shift=3), np.zeros((0, 1)), rows(2.0, 0.3, shift=3)])
    assert (told.offset_s, told.sure, told.foreign) == (pytest.approx(0.12), True, False)


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_frame_is_within_what_the_expert_can_tell(shift: int) -> None:
    told = source_offset([rows(ENOUGH_S, 0.3, shift)])
    assert (told.offset_s, told.sure) == (0.0, True)


def test_an_unclear_one_is_not() -> None:
    told = source_offset([rows(ENOUGH_S, 0.9 * SURE, shift=3)])
    assert (told.offset_s, told.sure, told.foreign) == (0.0, False, False)


def test_a_short_source_is_never_sure() -> None:
    told = source_offset([rows(ENOUGH_S - 1, 3 * SURE, shift=3)])
    assert (told.offset_s, told.sure, told.foreign) == (0.0, False, False)


def test_a_sound_that_never_fits_is_foreign_once_there_is_enough_of_it() -> None:
    assert source_offset([rows(ENOUGH_S + 1, 0.9 * FOREIGN)]).foreign
    assert not source_offset([rows(ENOUGH_S - 1, 0.9 * FOREIGN)]).foreign
    assert not source_offset([rows(ENOUGH_S + 1, 1.1 * FOREIGN)]).foreign


def test_nothing_to_judge_is_no_verdict() -> None:
    told = source_offset([])
    assert (told.offset_s, told.sure, told.foreign) == (0.0, False, False)


def test_every_window_of_a_clip_is_judged_with_the_faces_that_training_sees() -> None:
    config = load_config("debug")
    torch.manual_seed(0)
    expert = Expert(config.expert).eval()
    seen: list[torch.Tensor] = []
    embed = expert.embed_faces
    expert.embed_faces = lambda faces: seen.append(faces) or embed(faces)  # type: ignore[method-assign]
    crops = [np.full((40, 40, 3), 10 * number, np.uint8) for number in range(12)]
    for crop in crops:
        crop[18:22, 18:22] = 255  # stays in the middle
    mel = np.zeros((80, 400), np.float32)
    judged = offset_similarities(expert, crops, 1.25, 0.8, mel, Config().mel)
    assert judged.shape == (12 - 4, SHIFTS)
    assert seen[0].shape == (8, 15, 16, 32)
    first = seen[0][0].view(5, 3, 16, 32)[:, 0]
    assert float(first[1, -1, 0]) == pytest.approx(10 / 255)
    assert torch.equal(first[0, 0, 15:17], torch.ones(2))  # the top of the lower half is the middle of the face
    assert offset_similarities(expert, crops[:3], 1.25, 0.0, mel, Config().mel).shape == (0, 1)
