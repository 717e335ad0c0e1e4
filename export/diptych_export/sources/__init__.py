"""Where towers come from: each module turns one kind of checkpoint into a `Source`."""
