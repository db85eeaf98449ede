"""The command line. It knows the SDK and the public JSON, and of the platform nothing else."""
