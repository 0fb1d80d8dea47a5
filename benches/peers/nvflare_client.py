"""The NVFlare client: returns the model with a little noise."""

import numpy as np
import nvflare.client as flare


def main():
    flare.init()
    rng = np.random.default_rng()
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        params = {
            name: array + rng.standard_normal(array.shape, dtype=np.float32) * np.float32(1e-3)
            for name, array in model.params.items()
        }
        flare.send(flare.FLModel(params=params, params_type=model.params_type, meta={"NUM_STEPS_CURRENT_ROUND": 1}))


if __name__ == "__main__":
    main()
