"""The infrastructure back-end of a machine-learning platform, with Kubernetes as its backbone."""

__version__ = "0.1.0"
