"""The two names under which Lightning is installed."""

NAMESPACES = ["pytorch_lightning", "lightning.pytorch"]
