#!/usr/bin/env python3
"""Float against compressed, seed by seed, from what run.sh leaves behind.

The interval is Student's, 95 %, over the seeds' paired differences; the agreement is the share of test samples to which
both models give the same class.
"""
import json
import math
import pathlib
import sys

# Student's t, 97.5 %, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def main(folder: pathlib.Path) -> None:
    rows = []
    for release in sorted(folder.glob("*.release"), key=lambda path: int(path.stem)):
        weights = release.with_suffix(".safetensors")
        accuracy = [100 * json.loads(pathlib.Path(f"{path}.evaluate.json").read_text())["accuracy"] for path in (weights, release)]
        classes = [pathlib.Path(f"{path}.predictions").read_text().split() for path in (weights, release)]
        agreement = 100 * sum(a == b for a, b in zip(*classes)) / len(classes[0])
        bytes_f32 = json.loads(release.with_suffix(".compress.json").read_text())["bytes_f32"]
        size = release.stat().st_size
        rows.append((release.stem, accuracy[0], accuracy[1], accuracy[1] - accuracy[0], agreement, size, bytes_f32 / size))
    if not rows:
        sys.exit(f"{folder} holds no release: run.sh writes them there")
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
    main(pathlib.Path(sys.argv[1]))
