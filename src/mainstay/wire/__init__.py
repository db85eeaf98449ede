"""The public JSON: what goes over the wire between command line, SDK, pages and API. Nothing else, and nothing of ours inside."""
