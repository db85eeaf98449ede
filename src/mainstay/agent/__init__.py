"""The far end of a cluster that is reached by an agent: store, artifacts and questions over connections that it opens."""
