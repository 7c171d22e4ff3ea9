from __future__ import annotations

import pickle
import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from lipdub import errors
from lipdub.errors import LipdubError

CODES = {
    "InputError": 3,
    "NoFaceError": 4,
    "OutputError": 5,
    "SetupError": 6,
    "WeightsError": 7,
    "ResourceError": 8,
    "TrainingError": 8,
    "BatchError": 9,
    "StrictError": 10,
}


def test_every_error_owns_its_published_exit_code() -> None:
    found = {
        kind.__name__: kind.exit_code for kind in LipdubError.__subclasses__() if kind.__module__ == errors.__name__
    }
    assert found == CODES


@pytest.mark.parametrize("name", CODES)
def test_an_error_gets_from_one_process_to_another(name: str) -> None:
    error = pickle.loads(pickle.dumps(getattr(errors, name)("it is empty", "get it again")))
    assert (type(error).__name__, str(error), error.what, error.remedy) == (name, *["it is empty"] * 2, "get it again")


def test_the_table_of_the_module_is_current() -> None:
    rows = re.findall(r"[├└]── (\w+)\s+(\d+)", errors.__doc__ or "")
    assert {name: int(code) for name, code in rows} == CODES


def test_codes_keep_clear_of_bugs_usage_and_signals() -> None:
    assert LipdubError.exit_code == 1
    assert all(2 < code < 126 for code in CODES.values())


@pytest.mark.parametrize("kind", LipdubError.__subclasses__())
def test_an_error_says_what_and_what_next(kind: type[LipdubError]) -> None:
    error = kind("no audio in a.mp4", "give one with sound")
    assert (str(error), error.what, error.remedy) == ("no audio in a.mp4", "no audio in a.mp4", "give one with sound")
    with pytest.raises(TypeError, match="remedy"):
        kind("alone")


def test_every_message_of_the_package_has_a_remedy() -> None:
    """And is found: the page of messages is made of the same list."""
    loader = SourceFileLoader("error_reference", str(Path(__file__).parents[1] / "scripts" / "error_reference"))
    script = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(script)
    found = list(script.messages())
    assert len(found) > 200
    assert [(kind, what) for kind, what, remedy in found if not remedy.strip()] == []
