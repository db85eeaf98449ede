"""The shell around the decisions: two kinds of loop. Decision loops change what is wanted, effect loops change the world."""
