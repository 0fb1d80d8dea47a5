"""FedAvg over all clients by SecAgg+, every client with every other; without evaluation. It notes the time after each round."""

import time

import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    devices = int(config["devices"])

    def mark(server_round, parameters, _config):
        with open(config["marks"], "a", encoding="ascii") as file:
            file.write(f"{server_round} {time.time():.6f}\n")

    strategy = FedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=devices,
        min_available_clients=devices,
        initial_parameters=ndarrays_to_parameters([np.zeros(int(config["params"]), dtype=np.float32)]),
        evaluate_fn=mark,
    )
    legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=int(config["rounds"])), strategy=strategy)
    secure = SecAggPlusWorkflow(num_shares=devices, reconstruction_threshold=devices // 2 + 1)
    DefaultWorkflow(fit_workflow=secure)(grid, legacy)
