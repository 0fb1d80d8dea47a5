"""FedAvg over all clients, without evaluation. It notes the time after each round."""

import time

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    devices = int(config["devices"])

    def mark(server_round, arrays):
        with open(config["marks"], "a", encoding="ascii") as file:
            file.write(f"{server_round} {time.time():.6f}\n")

    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=devices,
        min_available_nodes=devices,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(int(config["params"]), dtype=np.float32)]),
        num_rounds=int(config["rounds"]),
        evaluate_fn=mark,
    )
