"""A client that returns the model with a little noise."""

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    rng = np.random.default_rng()
    arrays = [
        array + rng.standard_normal(array.shape, dtype=np.float32) * np.float32(1e-3)
        for array in message.content["arrays"].to_numpy_ndarrays()
    ]
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)
