"""The nouns of the platform: frozen values and enumerations. Standard library and NumPy only, no clock, no I/O."""
