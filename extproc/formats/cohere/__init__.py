"""Cohere's two APIs."""
