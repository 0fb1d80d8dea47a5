"""Makes trees.json: what Google's libraries say of tree aggregation.

    pip install dp-accounting==0.6.0 && pip install --no-deps tensorflow-privacy==0.9.0 && python trees.py

`once`: one tree in which a record appears once, by dp-accounting's RdpAccountant (neighbours: its
contribution replaced by zeros). `often`: the largest sum of squares that one
record adds to a tree's nodes, by TensorFlow Privacy's search over all patterns of participation (compute_zcdp_single_tree, of
which it is twice the answer at a noise multiplier of 1). Its `min_separation` counts the nodes between two appearances, one less
than ours. The module is loaded by its path, because the package itself imports TensorFlow.
"""

import importlib.metadata
import importlib.util
import json
import pathlib

from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.rdp import RdpAccountant

# Noise multiplier, steps, delta.
ONCE = [(1.13, 1_600, 1e-6), (8.83, 1_600, 1e-6), (0.7, 1, 1e-5), (2.0, 255, 1e-3), (2.0, 256, 1e-3), (20.0, 15_000, 1e-9)]

# Steps, most participations, least distance.
OFTEN = [
    (1_600, 1, 1), (100, 10, 10), (100, 10, 1), (100, 3, 25), (100, 100, 1), (64, 4, 16), (64, 8, 8), (200, 5, 40), (255, 4, 50),
    (256, 4, 64), (300, 7, 13), (512, 2, 200),
]


def once(noise, steps, delta):
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(dp_event.SingleEpochTreeAggregationDpEvent(noise, steps))
    return {"noise": noise, "steps": steps, "delta": delta, "rdp": accountant.get_epsilon(delta)}


def module():
    files = importlib.metadata.distribution("tensorflow-privacy").files
    path = next(file for file in files if file.name == "tree_aggregation_accountant.py").locate()
    spec = importlib.util.spec_from_file_location("tree_aggregation_accountant", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def often(tree, steps, participations_max, separation_min):
    squares = 2 * tree.compute_zcdp_single_tree(1.0, steps, participations_max, separation_min - 1)
    print(steps, participations_max, separation_min, squares, flush=True)
    return {
        "steps": steps, "participations_max": participations_max, "separation_min": separation_min, "squares": round(squares),
    }


tree = module()
versions = [f"{name} {importlib.metadata.version(name)}" for name in ("dp-accounting", "tensorflow-privacy")]
vectors = {
    "generator": f"trees.py, {', '.join(versions)}",
    "once": [once(*case) for case in ONCE],
    "often": [often(tree, *case) for case in OFTEN],
}
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(vectors, indent=1) + "\n")
