"""What a user may ask: each operation authorises, validates and commits in one transaction."""
