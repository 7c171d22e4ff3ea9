from __future__ import annotations

import pytest
import torch

from lipdub.dub.precision import half_precision
from lipdub.errors import InputError, SetupError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("name", "device"), [("no", "cpu"), ("no", "mps"), ("auto", "mps")])
def test_nothing_is_halved_unasked_where_that_is_not_known_to_be_fast(name: str, device: str) -> None:
    assert half_precision(name, torch.device(device)) is None


@pytest.mark.parametrize(
    ("told", "wanted"), [({}, None), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)]
)
def test_auto_is_half_where_the_processor_is_fast_in_it(monkeypatch, told, wanted) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert half_precision("auto", CPU) is wanted
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as before PyTorch 2.10
    assert half_precision("auto", CPU) is None


@pytest.mark.parametrize(("capability", "wanted"), [((6, 1), None), ((7, 0), torch.float16), ((9, 0), torch.float16)])
def test_auto_is_half_where_the_card_is_fast_in_it(monkeypatch, capability, wanted) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert half_precision("auto", CUDA) is wanted


def test_what_is_named_is_taken() -> None:
    assert half_precision("bf16", CPU) is torch.bfloat16 and half_precision("fp16", CPU) is torch.float16


def test_what_a_card_lacks_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.inference_mode())  # any context will do
    with pytest.raises(SetupError, match="bf16"):
        half_precision("bf16", CUDA)


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(InputError, match="half"):
        half_precision("half", CPU)
