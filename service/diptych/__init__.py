"""CLIP-style dual encoders, served over gRPC."""
