#!/usr/bin/env python3
"""Float against compressed, seed by seed, from what run.sh leaves behind: `summary.py OUT SEED …`.

Only the seeds that are named count, whatever else the folder holds; a figure older than the file that it is of is refused.
The interval is Student's, 95 %, over the seeds' paired differences; the agreement is the share of test samples to which
both models give the same class.
"""
import json
import math
import pathlib
import sys

# Student's t, 97.5 %, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def fresh(path: pathlib.Path, model: pathlib.Path) -> str:
    """What `path` says of `model`, which was there before it."""
    for file in (model, path):
        if not file.exists():
            sys.exit(f"{file} is missing: run.sh makes it")
    if path.stat().st_mtime < model.stat().st_mtime:
        sys.exit(f"{path} is older than {model}: it is of another model; run.sh makes it anew")
    return path.read_text()


def main(folder: pathlib.Path, seeds: list[str]) -> None:
    rows = []
    for seed in seeds:
        release, weights = folder / f"{seed}.release", folder / f"{seed}.safetensors"
        accuracy = [
            100 * json.loads(fresh(pathlib.Path(f"{path}.evaluate.json"), path))["accuracy"] for path in (weights, release)
        ]
        classes = [fresh(pathlib.Path(f"{path}.predictions"), path).split() for path in (weights, release)]
        agreement = 100 * sum(a == b for a, b in zip(*classes)) / len(classes[0])
        bytes_f32 = json.loads(fresh(release.with_suffix(".compress.json"), release))["bytes_f32"]
        size = release.stat().st_size
        rows.append((release.stem, accuracy[0], accuracy[1], accuracy[1] - accuracy[0], agreement, size, bytes_f32 / size))
    if not rows:
        sys.exit("name the folder that run.sh has filled, and the seeds")
    print("| seed | float, % | compressed, % | difference, points | agreement, % | bytes | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for seed, before, after, difference, agreement, size, ratio in rows:
        print(f"| {seed} | {before:.2f} | {after:.2f} | {difference:+.2f} | {agreement:.2f} | {size} | {ratio:.1f} |")
    count = len(rows)
    mean = [sum(row[column] for row in rows) / count for column in range(1, 7)]
    line = f"| mean | {mean[0]:.2f} | {mean[1]:.2f} | {mean[2]:+.2f}"
    if count - 1 in T:
        spread = math.sqrt(sum((row[3] - mean[2]) ** 2 for row in rows) / (count - 1))
        line += f" ± {T[count - 1] * spread / math.sqrt(count):.2f}"
    print(f"{line} | {mean[3]:.2f} | {mean[4]:.0f} | {mean[5]:.1f} |")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
