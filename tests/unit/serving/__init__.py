"""The model server and its model directories."""
