"""One file per published figure, each runnable alone: `python -m benchmarks.NAME`, or `make bench-NAME`.

Each prints a table for people and, as its last line, one JSON object of its figures, spreads and goals.
"""
