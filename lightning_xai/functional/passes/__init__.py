"""How a model is asked: inputs, outputs and targets, inside a pass that leaves no trace."""
