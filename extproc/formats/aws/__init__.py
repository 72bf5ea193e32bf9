"""Bedrock, and the framing of its streams."""
