"""The public HTTP API: routes by topic, and the conversion between the public JSON and the domain."""
