"""Gemini and Vertex AI, and what other vendors are there."""
