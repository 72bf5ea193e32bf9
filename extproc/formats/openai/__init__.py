"""OpenAI's APIs, which half of all servers imitate."""
