"""Files by content in a directory or an object store (S3, GCS, Azure), one implementation for all."""
