"""Attention where it happens: kernels and softmaxes watched, and their backward."""
