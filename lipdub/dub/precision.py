"""Floating-point precision of the networks.

The generator's half precision is autocast's: products and convolutions in 16 bits, weights kept in 32. A copy of the
weights in 16 bits would save a cast of 28 MB a batch, but then nothing would be left to repeat a batch with whose
picture is not finite. What positions and colours are made of stays in 32 bits: a warp's fields and shares, and the
composing itself.

On 223 faces of four clips the generator of 0.2.0 differed from its own float32 by at most 1 level of 255 in fp16 (0.01
on average) and by at most 10 in bf16 (0.09); its largest activation was 23, where fp16 holds 65,504. The present one
differs in bf16 by at most 18 levels on eight made faces (0.21).

On CPUs that multiply in bf16 the networks that find faces, landmarks and what covers them run in it, too, with packed
weights. On the first 50 frames of ten clips of clips/dev they tracked the same faces in the same frames; landmarks of
real faces differed from those in float32 by 0.04 % of the face's size on average.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lipdub.errors import InputError, SetupError
from lipdub.faces.builtin import BuiltinBackend
from lipdub.faces.occlusion import OcclusionDetector

PRECISIONS = ("auto", "no", "bf16", "fp16")
TENSOR_CORES = (7, 0)  # compute capability from which fp16 is fast; older cards are slower in it than in float32


def half_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type of `sync.precision` on a device; None is float32.

    "auto" is fp16 on NVIDIA cards that have fast hardware for it, since it is closer to float32 than bf16 and as
    fast; bf16 on processors that multiply in it (AMX, or AVX-512's); and float32 everywhere else.

    Raises:
        InputError: no such precision.
        SetupError: bf16 on a card that does not have it.
    """
    if name not in PRECISIONS:
        raise InputError(f"sync.precision cannot be {name!r}", f"it is one of {', '.join(PRECISIONS)}")
    if name == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if _multiplies_in_bf16() else None
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES
        return torch.float16 if fast else None
    if name == "bf16" and device.type == "cuda":
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                raise SetupError("sync.precision bf16: this card does not have it", "--set sync.precision=fp16")
    return {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def packs(name: str, device: torch.device) -> bool:
    """Whether the small networks on faces run in bfloat16, too: on CPUs alone, since accelerators wait for them."""
    return device.type == "cpu" and half_precision(name, device) is torch.bfloat16


def pack_all(*networks: object) -> None:
    """Bring face networks to bfloat16, those that can be."""
    for each in networks:
        if isinstance(each, BuiltinBackend | OcclusionDetector):
            each.pack()


def _multiplies_in_bf16() -> bool:
    """Whether the processor does, as far as PyTorch says; one that only emulates it is slower than in float32."""
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
