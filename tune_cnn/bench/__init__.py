"""Figures of speed: what a training step takes here, against a loop written by hand and against its convolutions."""
