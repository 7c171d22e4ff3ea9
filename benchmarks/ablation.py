"""The eight rows of Table 4.1 for a few steps each: what they cost, and whether they learn.

    python benchmarks/ablation.py DATASET [--steps 30] [--clips 1]

Rows 1 to 7 begin with the same random weights' seed, row 8 with what row 7 has learnt. Losses are means over the first
and the last fifth of the steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from lipdub.config import PRESETS, load_config
from lipdub.training.plan import cost
from lipdub.training.stages import RunRequest, run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--clips", type=int, default=1, help="of a batch; the thesis has 4")
    args = parser.parse_args()
    print("| row | parameters | GFLOP a frame | L1 first | L1 last | L1 held out | s a step |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        before = ""
        for preset in sorted((PRESETS / "ablation").glob("*.toml")):
            stage = "2" if preset.stem.endswith("gan") else "1"
            settings = {"stage": f"{stage!r}", "steps": args.steps, "batch_clips": args.clips, "log_every": 1}
            settings |= {"validate_every": args.steps, "sample_every": args.steps, "anneal": 0}
            config = load_config(f"ablation/{preset.stem}", [f"train.{key}={value}" for key, value in settings.items()])
            run = Path(folder) / preset.stem
            start = before if stage == "2" else None
            run_stage(RunRequest(stage=stage, data=args.data, run=run, config=config, start=start), lambda line: None)
            before = str(run)
            told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            steps = [line for line in told if line["kind"] == "train"]
            fifth = max(1, args.steps // 5)
            first, last = (float(np.mean([line["l1"] for line in part])) for part in (steps[:fifth], steps[-fifth:]))
            seconds = args.clips / float(np.median([line["clips_per_s"] for line in steps]))
            parameters, flops = cost(stage, config)
            print(
                f"| {preset.stem} | {parameters:,} | {flops / 1e9:.4f} | {first:.4f} | {last:.4f} "
                f"| {told[-1]['val_l1']:.4f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
