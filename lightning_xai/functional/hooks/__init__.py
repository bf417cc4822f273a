"""The one place that touches module hooks: the taps on layers, the calls of a forward, what is behind a layer."""

from lightning_xai.functional.hooks.calls import Call, running_modules, trace
from lightning_xai.functional.hooks.embedded import embedding
from lightning_xai.functional.hooks.tail import Tail, replaying, record_tail
from lightning_xai.functional.hooks.taps import DisconnectedError, graph_nodes, operation, record, tapping

__all__ = [
    "Call",
    "DisconnectedError",
    "Tail",
    "continuing",
    "embedding",
    "following",
    "graph_nodes",
    "operation",
    "record",
    "record_tail",
    "tapping",
    "trace",
]
