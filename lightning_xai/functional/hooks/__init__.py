"""The one place that touches module hooks: the taps on layers, the calls of a forward, what is behind a layer."""

from lightning_xai.functional.hooks.altered import altering
from lightning_xai.functional.hooks.calls import Call, running_modules, trace
from lightning_xai.functional.hooks.embedded import embedding
from lightning_xai.functional.hooks.tail import Tail, record_tail, replaying
from lightning_xai.functional.hooks.taps import DisconnectedError, graph_nodes, operation, record, tapping

__all__ = [
    "Call",
    "DisconnectedError",
    "Tail",
    "replaying",
    "altering",
    "embedding",
    "running_modules",
    "graph_nodes",
    "operation",
    "record",
    "record_tail",
    "tapping",
    "trace",
]
