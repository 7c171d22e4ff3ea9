"""The builtin face networks against their teachers (good: recall 0.99, 0.12 false faces per 100 frames, NME 2.1 %).

    python -m benchmarks faces CLIPS_DIR --labels LABELS_DIR --yunet YUNET.onnx [--cascade] [--record]

LABELS_DIR comes from scripts/label_faces.py on the same clips. Prints, over all labelled frames: recall of the
teacher's boxes at IoU 0.5, false faces per 100 frames, NME (mean landmark error over the outer-eye-corner distance),
correlation of inner-lip opening with the mesh's, and milliseconds. `--cascade` adds scikit-image's LBP cascade;
`--record` writes benchmarks/results/faces.json.

A builtin face that overlaps no teacher box is false only if the teacher sees nothing there at all, also at a low
score and at IoU 0.3: some of what YuNet misses are faces.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.arguments import add_yunet, parser_of
from benchmarks.results import names_with_sums, record
from lipdub.config import FaceConfig
from lipdub.evaluation.teachers import YuNet
from lipdub.faces.builtin import BuiltinBackend
from lipdub.faces.choose import builtin_backend
from lipdub.models.facenets import box_iou
from lipdub.training.facedata import labelled_clips, read_frames

METRICS = {
    "recall": "recall of YuNet's boxes, IoU 0.5",
    "false": "false faces per 100 frames",
    "nme": "landmark error over the distance of the outer eye corners, against MediaPipe",
}


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return box_iou(torch.from_numpy(a.reshape(-1, 4)), torch.from_numpy(b.reshape(-1, 4))).numpy()


def cascade_boxes(frame: np.ndarray) -> np.ndarray:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    scale = 320 / max(frame.shape[:2])
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = Cascade(lbp_frontal_face_cascade_filename()).detect_multi_scale(small, 1.2, 1, (24, 24), (240, 240))
    rows = [(f["c"], f["r"], f["c"] + f["width"], f["r"] + f["height"]) for f in found]
    return np.array(rows, np.float32).reshape(-1, 4) / scale


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    add_yunet(parser)
    parser.add_argument("--cascade", action="store_true")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    backend: BuiltinBackend = builtin_backend(FaceConfig(), torch.device("cpu"))
    low = YuNet(args.yunet, threshold=0.25)
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, clip, label in labelled_clips(args.clips, args.labels):
        data = np.load(label)
        openings = []
        for index, frame in read_frames(clip, set(data["frame"].tolist())):
            here = data["frame"] == index
            truth = data["box"][here]
            large = (truth[:, 2:] - truth[:, :2]).max(1) >= 20
            started = time.perf_counter()
            found = backend.detect([frame])[0].boxes
            rows[group]["detect_ms"].append(1000 * (time.perf_counter() - started))
            overlap = iou(truth, found)
            rows[group]["recall"].extend((overlap.max(1, initial=0) >= 0.5)[large].astype(float))
            doubtful = np.concatenate(
                [
                    truth,
                    np.array([[f[0], f[1], f[0] + f[2], f[1] + f[3]] for f in low.detect(frame)], np.float32).reshape(
                        -1, 4
                    ),
                ]
            )
            rows[group]["false"].append(float((iou(found, doubtful).max(1, initial=0) < 0.3).sum()))
            if args.cascade:
                boxes = cascade_boxes(frame)
                rows[group]["lbp_recall"].extend((iou(truth, boxes).max(1, initial=0) >= 0.3)[large].astype(float))
                rows[group]["lbp_false"].append(float((iou(boxes, truth).max(1, initial=0) < 0.1).sum()))
            for row in np.flatnonzero(here):
                hits = overlap[row - np.flatnonzero(here)[0]]
                if data["presence"][row] < 0.7 or hits.max(initial=0) < 0.5:
                    continue
                started = time.perf_counter()
                points, sure = backend.landmarks([frame], found[[hits.argmax()]])
                rows[group]["landmarks_ms"].append(1000 * (time.perf_counter() - started))
                true = data["landmarks"][row]
                unit = np.linalg.norm(true[36] - true[45])
                rows[group]["nme_%"].append(100 * float(np.linalg.norm(points[0] - true, axis=1).mean() / unit))
                rows[group]["lips_nme_%"].append(
                    100 * float(np.linalg.norm((points[0] - true)[48:], axis=1).mean() / unit)
                )
                rows[group]["confidence"].append(float(sure[0]))
                openings.append([np.linalg.norm(p[62] - p[66]) / unit for p in (true, points[0])])
        if len(openings) > 8:
            rows[group]["opening_r"].append(float(np.corrcoef(np.array(openings).T)[0, 1]))
    groups = [*rows, "all"]
    for key in next(iter(rows.values())):
        rows["all"][key] = [value for group in groups[:-1] for value in rows[group][key]]
    keys = list(rows["all"])
    print("group".ljust(16), *(key.rjust(12) for key in keys), "frames".rjust(8))
    for group in groups:
        means = {
            k: np.median(v) if k.endswith("_ms") else np.mean(v) if v else float("nan") for k, v in rows[group].items()
        }
        means["false"] = 100 * means["false"]
        print(
            group.ljust(16), *(f"{means.get(k, float('nan')):12.3f}" for k in keys), f"{len(rows[group]['false']):8d}"
        )
    if args.record:
        done, frames = rows["all"], len(rows["all"]["false"])
        means = {key: float(np.mean(done[name])) for key, name in (("recall", "recall"), ("nme", "nme_%"))}
        means["false"] = 100 * float(np.mean(done["false"]))
        values = [{"key": k, "metric": METRICS[k], "value": means[k], "n": frames} for k in METRICS]
        weights = names_with_sums("faces-detector", "faces-landmarks")
        print(record("faces", values, title="The builtin face networks", weights=weights))
