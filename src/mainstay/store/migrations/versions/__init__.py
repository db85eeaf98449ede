"""One file per change of the schema; frozen once released."""
