from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lipdub.config import PRESETS, Config, GeneratorConfig, from_dict, load_config, to_dict
from lipdub.errors import InputError


def test_defaults_are_the_values_of_the_thesis() -> None:
    config = Config()
    assert (config.mel.sample_rate, config.mel.hop, config.mel.n_fft, config.mel.n_mels) == (16000, 200, 800, 80)
    assert (config.face.size, config.generator.size, config.expert.size, config.discriminator.size) == (96,) * 4
    assert (config.expert.frames, config.expert.window, config.expert.embedding) == (5, 16, 512)
    assert (config.reference.sampling, config.reference.count) == ("kmeans", 10)
    assert (config.loss.l1, config.loss.vgg, config.loss.mask, config.loss.r1_gamma) == (1.0, 0.5, 1.0, 10.0)
    assert (config.train.learning_rate, config.train.batch_clips, config.train.frames) == (2e-4, 4, 5)


def test_sixteen_mel_steps_are_five_frames_of_25_fps() -> None:
    mel = Config().mel
    assert mel.window * mel.hop / mel.sample_rate == pytest.approx(5 / 25)


def test_overrides_are_parsed_by_the_type_of_the_field() -> None:
    config = load_config(
        None,
        [
            "generator.size=128",
            "generator.widths=[8, 16]",
            "generator.attention=false",
            "loss.vgg=1",
            "reference.sampling=random",
            " face.min_face = 12.5 ",
        ],
    )
    assert config.generator.size == 128
    assert config.generator.widths == (8, 16)
    assert config.generator.attention is False
    assert config.loss.vgg == 1.0
    assert isinstance(config.loss.vgg, float)
    assert config.reference.sampling == "random"
    assert config.face.min_face == 12.5
    assert config.mel == Config().mel


def test_the_last_override_wins_over_the_preset(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("[train]\nsteps = 7\nworkers = 3\n")
    config = load_config(preset, ["train.steps=8", "train.steps=9"])
    assert (config.train.steps, config.train.workers) == (9, 3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("generator.sice=1", "sice"),
        ("gen.size=1", "gen"),
        ("generator.size=1.5", "size"),
        ("generator.size=true", "size"),
        ("generator.size=large", "size"),
        ("generator.widths=[1, 2.5]", "widths"),
        ("generator.attention=1", "attention"),
        ("generator=3", "generator=3"),
        ("generator.size", "generator.size"),
        ("size=3", "size=3"),
    ],
)
def test_wrong_overrides_name_what_is_wrong(text: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        load_config(None, [text])


def test_an_unknown_key_lists_those_that_exist() -> None:
    with pytest.raises(InputError) as raised:
        load_config(None, ["face.sise=1"])
    assert "detect_every" in raised.value.remedy


def test_a_missing_preset_lists_those_that_exist() -> None:
    with pytest.raises(InputError, match="nosuch") as raised:
        load_config("nosuch")
    assert all(name in raised.value.remedy for name in ("thesis", "debug", "small-cpu"))


def test_a_broken_preset_is_named(tmp_path: Path) -> None:
    preset = tmp_path / "broken.toml"
    preset.write_text("[train\n")
    with pytest.raises(InputError, match=r"broken\.toml"):
        load_config(preset)


@pytest.mark.parametrize("path", sorted(PRESETS.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_preset_loads(path: Path) -> None:
    assert isinstance(load_config(path.relative_to(PRESETS).with_suffix("").as_posix()), Config)


def test_the_thesis_preset_changes_nothing() -> None:
    assert load_config("thesis") == Config()


def test_the_sizes_of_the_debug_preset_agree() -> None:
    config = load_config("debug")
    sizes = {config.face.size, config.generator.size, config.expert.size, config.discriminator.size}
    assert sizes == {32}
    assert config.reference.count == config.train.references


def test_a_configuration_survives_json() -> None:
    config = load_config("debug", ["loss.expert=0.25"])
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_a_section_stands_alone() -> None:
    assert from_dict(GeneratorConfig, {"size": 64}) == dataclasses.replace(GeneratorConfig(), size=64)


def test_sections_are_frozen_and_keyword_only() -> None:
    for field in dataclasses.fields(Config):
        section = getattr(Config(), field.name)
        name = dataclasses.fields(section)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(section, name, None)
        with pytest.raises(TypeError):
            type(section)(1)
