"""What must hold before a platform runs: its database, its state directory, its sockets."""
