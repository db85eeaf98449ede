"""The real decisions, store and loops under a seeded scheduler of faults, held against witnesses outside of them."""
