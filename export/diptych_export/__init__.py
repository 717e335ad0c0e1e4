"""Training and export: from pairs or a foreign checkpoint to a verified model repository."""
