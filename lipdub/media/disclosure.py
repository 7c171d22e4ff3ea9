"""Machine-readable disclosure: tags that say a file's lips were altered with AI, and how to find them again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lipdub.media.probe import open_input

# IPTC NewsCodes, Digital Source Type: an edit of a recording with a trained model, not a wholly synthetic picture.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_SENTENCE = re.compile(r"Lip movements altered with AI \(lipdub ([^\s()]+)\)")
KEYS = ("comment", "digital_source_type", "lipdub_version", "lipdub_weights", "lipdub_label")


def disclosure_tags(version: str, weights_sha256: str, label: str | None = None) -> dict[str, str]:
    """Tags for every output.

    Args:
        version: of lipdub.
        weights_sha256: of the generator that made the mouths.
        label: the caption that viewers see, if there is one.
    """
    tags = {
        "comment": f"Lip movements altered with AI (lipdub {version})",
        "digital_source_type": SOURCE_TYPE,
        "lipdub_version": version,
        "lipdub_weights": weights_sha256,
    }
    return tags if label is None else tags | {"lipdub_label": label}


def read_marks(path: Path) -> dict[str, str]:
    """The disclosure tags of a file; empty when it carries none.

    Raises:
        InputError: not a media file.
    """
    with open_input(Path(path)) as container:
        return marks_in(container.metadata)


def marks_in(metadata: Mapping[str, str]) -> dict[str, str]:
    """The disclosure tags among those of a file.

    Software that copies an MP4 may keep the comment alone: then that and the version it names are all there is.
    """
    tags = {key.lower(): value for key, value in metadata.items()}  # Matroska writes capitals
    comment = tags.get("comment", "")
    if "digital_source_type" not in tags and "digital_source_type=" in comment:
        words, *pairs = comment.partition(" | ")[0].split("; ")
        tags |= {"comment": words} | dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if "digital_source_type" not in tags and (match := _SENTENCE.search(comment)) is not None:
        return {"comment": comment, "lipdub_version": match[1]}
    return {key: tags[key] for key in KEYS if key in tags} if "digital_source_type" in tags else {}


def verdict(marks: Mapping[str, str]) -> str:
    """In one sentence: did lipdub alter the file that carries these marks?"""
    version, kind = marks.get("lipdub_version"), marks.get("digital_source_type", "")
    if version and kind:
        return f"lipdub {version} altered the lips in this file with AI."
    if version:
        return f"lipdub {version} altered the lips in this file with AI: its comment says so, other marks are gone."
    if kind:
        return f"No mark of lipdub; the file calls itself {kind.rpartition('/')[2]}."
    return "No mark of lipdub: it did not alter this file, or its marks were lost, as when a site encodes it again."


def folded(marks: dict[str, str]) -> str:
    """All marks as one comment, for files that hold no other tag; `read_marks` takes it apart again."""
    words = [marks.get("comment", ""), *(f"{key}={value}" for key, value in marks.items() if key != "comment")]
    return "; ".join(words)
