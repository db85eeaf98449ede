"""One file per model format; each turns a descriptor into a Predictor and refuses what it cannot trust."""
