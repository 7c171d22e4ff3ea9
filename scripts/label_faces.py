"""Label footage for `lipdub train --stage detector` and `landmarks`: every face in every frame.

    python scripts/label_faces.py CLIPS_DIR -o labels --yunet YUNET.onnx --mesh face_landmarker.task

Boxes are YuNet's, landmarks MediaPipe's. One .npz a clip: frame (n,), box (n, 4), score (n,), landmarks (n, 68, 2),
presence (n,). Clips that have theirs are not labelled again. Needs `lipdub[teachers]`.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np

from lipdub.data.corpora import VIDEO_SUFFIXES
from lipdub.evaluation.teachers import MESH_TO_IBUG, FaceMesh, YuNet


def label(clip: Path, out: Path, yunet: Path, mesh: Path, every: int) -> int:
    """Label one clip; returns the number of faces."""
    cv2.setNumThreads(1)
    detector, landmarker = YuNet(yunet), FaceMesh(mesh)
    rows = []
    with av.open(str(clip)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index % every:
                continue
            frame = picture.to_ndarray(format="rgb24")
            for face in detector.detect(frame):
                points, presence = landmarker.from_box(frame, face)
                x, y, w, h = face[:4]
                rows.append((index, (x, y, x + w, y + h), face[14], points[MESH_TO_IBUG], presence))
    frames, boxes, scores, landmarks, presences = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".part.npz")
    np.savez_compressed(
        temporary,
        frame=np.array(frames, np.int32),
        box=np.array(boxes, np.float32).reshape(-1, 4),
        score=np.array(scores, np.float32),
        landmarks=np.array(landmarks, np.float32).reshape(-1, 68, 2),
        presence=np.array(presences, np.float32),
    )
    temporary.replace(out)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--mesh", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="label every n-th frame")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    clips = sorted(p for p in args.clips.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    todo = []
    for clip in clips:
        out = args.output / clip.relative_to(args.clips).with_suffix(".npz")
        if not out.exists():
            todo.append((clip, out, args.yunet, args.mesh, args.every))
    print(f"{len(clips)} clips, {len(todo)} to label", flush=True)
    with ProcessPoolExecutor(args.jobs) as pool:
        for done, faces in enumerate(pool.map(label, *zip(*todo, strict=True), chunksize=4) if todo else (), 1):
            if done % 50 == 0:
                print(f"{done}/{len(todo)} clips, last had {faces} faces", flush=True)


if __name__ == "__main__":
    main()
