"""A client that returns the model with a little noise, under the masks of SecAgg+."""

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod


class Echo(NumPyClient):
    def fit(self, parameters, config):
        rng = np.random.default_rng()
        noisy = [array + rng.standard_normal(array.shape, dtype=np.float32) * np.float32(1e-3) for array in parameters]
        return noisy, 1, {}


app = ClientApp(client_fn=lambda context: Echo().to_client(), mods=[secaggplus_mod])
