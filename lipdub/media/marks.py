"""Machine-readable disclosure: tags that say a file's lips were altered with AI, and how to find them again."""

from __future__ import annotations

from pathlib import Path

from lipdub.media.probe import open_input

# IPTC NewsCodes, Digital Source Type: an edit of a recording with a trained model, not a wholly synthetic picture.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
KEYS = ("comment", "digital_source_type", "lipdub_version", "lipdub_weights")


def disclosure_tags(version: str, weights_sha256: str) -> dict[str, str]:
    """Tags for every output.

    Args:
        version: of lipdub.
        weights_sha256: of the generator that made the mouths.
    """
    return {
        "comment": f"Lip movements altered with AI (lipdub {version})",
        "digital_source_type": SOURCE_TYPE,
        "lipdub_version": version,
        "lipdub_weights": weights_sha256,
    }


def read_marks(path: Path) -> dict[str, str]:
    """The disclosure tags of a file; empty when it carries none of ours.

    Raises:
        InputError: not a media file.
    """
    with open_input(Path(path)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}  # Matroska writes capitals
    comment = tags.get("comment", "")
    if "digital_source_type" not in tags and "digital_source_type=" in comment:
        words, *pairs = comment.partition(" | ")[0].split("; ")
        tags |= {"comment": words} | dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {key: tags[key] for key in KEYS if key in tags} if "digital_source_type" in tags else {}


def folded(marks: dict[str, str]) -> str:
    """All marks as one comment, for files that hold no other tag; `read_marks` takes it apart again."""
    words = [marks.get("comment", ""), *(f"{key}={value}" for key, value in marks.items() if key != "comment")]
    return "; ".join(words)
