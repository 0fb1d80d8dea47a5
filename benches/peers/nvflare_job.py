"""Run with NVFlare's python: `export` writes the job, `submit` hands it to a running system and waits for its end."""

import argparse
import os
import time

import numpy as np


def export(args):
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe

    start = os.path.join(args.job, "start.npy")
    os.makedirs(args.job, exist_ok=True)
    np.save(start, np.zeros(args.params, dtype=np.float32))
    recipe = NumpyFedAvgRecipe(
        name="peer-echo",
        initial_ckpt=start,
        min_clients=args.devices,
        num_rounds=args.rounds,
        train_script=os.path.join(os.path.dirname(os.path.abspath(__file__)), "nvflare_client.py"),
    )
    recipe.export(args.job)


def submit(args):
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    session = None
    while session is None:
        try:
            session = new_secure_session("admin@nvidia.com", args.admin, timeout=5.0)
        except Exception:  # the server is not up yet; compare.py bounds the wait
            time.sleep(0.2)
    try:
        while len(session.get_system_info().client_info) < args.devices:
            time.sleep(0.2)
        job = session.submit_job(os.path.join(args.job, "peer-echo"))
        print("submitted", job, flush=True)
        print("ended", session.wait_for_job(job).get("status"), flush=True)
    finally:
        session.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["export", "submit"])
    parser.add_argument("--job", required=True)
    parser.add_argument("--admin")
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--params", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0)
    args = parser.parse_args()
    {"export": export, "submit": submit}[args.verb](args)


if __name__ == "__main__":
    main()
