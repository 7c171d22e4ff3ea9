"""Arguments that several benchmarks take."""

from __future__ import annotations

import argparse
from pathlib import Path

from lipdub.evaluation.landmark_track import MeshLandmarkTracker


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Parser of a benchmark, with the docstring of its file as its help."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add -o, the folder for results."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")


def add_yunet(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add --yunet, the independent face detector."""
    parser.add_argument("--yunet", type=Path, required=required, help="face_detection_yunet_2023mar.onnx")


def add_judge(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add --yunet and --mesh, the files of the independent judge of landmarks."""
    add_yunet(parser, required=required)
    parser.add_argument("--mesh", type=Path, required=required, help="face_landmarker.task")


def judge_of(args: argparse.Namespace) -> MeshLandmarkTracker:
    """The judge that the arguments of `add_judge` name."""
    return MeshLandmarkTracker(args.yunet, args.mesh)
