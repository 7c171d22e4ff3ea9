"""The plain way to dub, as the scripts of the field work, against `lipdub sync`; paired, in one run.

    python benchmarks/plain.py CLIP SOUND -o OUT [--seconds 2] [--size 1280x720]

Plain: all frames into memory, S3FD on every full frame, all crops, Wav2Lip in batches of 128, every mouth resized and
pasted, an intermediate MPEG-4 AVI, a second encode with the sound. Written here from the published description
(arXiv 2008.10010 and its script's order of work); S3FD is face-alignment's network. Both networks have random weights,
which cost what trained ones do, and the box is that of lipdub's own detector. Both ways run in this process after their
imports; lipdub's models are loaded inside its time, the plain way's are not.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from face_alignment.detection.sfd.net_s3fd import s3fd
from jobs import looped
from torch import Tensor

from lipdub import SyncOptions, sync
from lipdub.config import Config
from lipdub.faces.choose import face_backend
from lipdub.media.audio import load_audio
from lipdub.media.mux import ffmpeg_binary
from lipdub.mel import log_mel, mel_windows
from lipdub.models.wav2lip import FACE_SIDE, Wav2Lip

FACES = 128  # of Wav2Lip's batch
PICTURES = 4  # of the detector's batch; its script begins with 16 and halves until memory suffices


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.stages[name] = round(time.monotonic() - started, 2)


def plain_way(video: Path, sound: Path, output: Path, detector: torch.nn.Module, generator: Wav2Lip) -> Clock:
    clock = Clock()
    with clock.stage("read"):
        capture, frames = cv2.VideoCapture(str(video)), []
        fps = capture.get(cv2.CAP_PROP_FPS)
        while (read := capture.read())[0]:
            frames.append(read[1])
        config = Config()
        mel = log_mel(load_audio(sound), config.mel)
        windows = mel_windows(mel, (np.arange(len(frames)) + 0.5) / fps, config.mel)
    with clock.stage("detect"), torch.inference_mode():
        for first in range(0, len(frames), PICTURES):
            batch = np.stack(frames[first : first + PICTURES]).transpose(0, 3, 1, 2)
            detector(torch.from_numpy(batch).float())
    backend = face_backend("builtin", config.face, torch.device("cpu"))
    boxes = backend.detect([np.ascontiguousarray(frames[len(frames) // 2][..., ::-1])])[0].boxes
    x1, y1, x2, y2 = (int(value) for value in boxes[0])
    with clock.stage("generate"), torch.inference_mode():
        crops = np.stack([cv2.resize(frame[y1:y2, x1:x2], (FACE_SIDE, FACE_SIDE)) for frame in frames])
        faces = torch.from_numpy(crops.transpose(0, 3, 1, 2)).float() / 255
        masked = faces.clone()
        masked[:, :, FACE_SIDE // 2 :] = 0
        mouths: list[Tensor] = []
        for first in range(0, len(frames), FACES):
            at = slice(first, first + FACES)
            pair = torch.cat([masked[at], faces[at]], 1)
            mouths.append(generator(torch.from_numpy(windows[at])[:, None], pair))
        made = (torch.cat(mouths) * 255).byte().permute(0, 2, 3, 1).numpy()
    middle = output.with_suffix(".avi")
    with clock.stage("paste"):
        height, width = frames[0].shape[:2]
        writer = cv2.VideoWriter(str(middle), cv2.VideoWriter.fourcc(*"DIVX"), fps, (width, height))
        for frame, mouth in zip(frames, made, strict=True):
            frame[y1:y2, x1:x2] = cv2.resize(mouth, (x2 - x1, y2 - y1))
            writer.write(frame)
        writer.release()
    with clock.stage("encode"):
        sounds = ["-i", str(sound), "-i", str(middle), "-map", "0:a", "-map", "1:v", "-shortest"]
        subprocess.run([str(ffmpeg_binary()), "-v", "error", "-y", *sounds, "-q:v", "1", str(output)], check=True)
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("sound", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--size", default="1280x720")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    video = looped(args.clip, args.output / f"picture-{args.seconds:g}-{args.size}.mp4", args.seconds, args.size)
    sound = looped(args.sound, args.output / f"sound-{args.seconds:g}.wav", args.seconds, None)
    torch.manual_seed(0)
    detector, generator = s3fd().eval(), Wav2Lip().eval()
    clock = plain_way(video, sound, args.output / "plain.mp4", detector, generator)
    report = sync(video, sound, args.output / "lipdub.mp4", SyncOptions(overwrite=True, device="cpu"))
    plain_s, ours_s = sum(clock.stages.values()), report.seconds
    print(f"{report.frames} frames of {args.size}, {report.dubbed} dubbed, {torch.get_num_threads()} threads")
    print(f"plain:  {plain_s:7.1f} s  {report.frames / plain_s:6.2f} fps  {clock.stages}")
    print(f"lipdub: {ours_s:7.1f} s  {report.frames / ours_s:6.2f} fps  {report.stages}")
    without = plain_s - clock.stages["detect"]
    print(f"plain over lipdub: {plain_s / ours_s:.1f}; {without / ours_s:.2f} where detecting cost nothing")


if __name__ == "__main__":
    main()
