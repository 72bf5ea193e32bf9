"""AI traffic policy for Envoy: the rooms, and the words used in them."""
