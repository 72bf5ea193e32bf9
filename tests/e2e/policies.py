"""The policies of the end-to-end tests: every test gets a team of its own, so that counters do not mix."""

import hashlib

CALLERS = 400
# What a team may use; its bucket refills by one token a day, so a count stays while the tests run.
TEAM_TOKENS = 1_000_000


def key(number: int) -> str:
    """The API key of caller `number`."""
    return f"sk-e2e-{number}"


def team(number: int) -> str:
    """The team of caller `number`."""
    return f"team-{number}"


def _api_key(number: int) -> str:
    digest = hashlib.sha256(key(number).encode()).hexdigest()
    return f"""
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {{name: caller-{number}}}
spec: {{sha256: {digest}, user: user-{number}, team: {team(number)}}}
"""


RULES = f"""
apiVersion: ai-policy/v1
kind: Defaults
metadata: {{name: defaults}}
spec: {{access: deny, maxBodyBytes: 8388608}}
---
apiVersion: ai-policy/v1
kind: Identity
metadata: {{name: callers}}
spec:
  anonymous: deny
  sources:
  - apiKey: {{header: authorization, scheme: Bearer}}
  - apiKey: {{header: x-api-key}}
  - apiKey: {{header: api-key}}
  - apiKey: {{header: x-goog-api-key}}
  - apiKey: {{query: key}}
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {{name: known-models}}
spec:
  effect: allow
  match: >-
    request.operation == "control" || request.model.startsWith("gpt-") ||
    request.model.startsWith("claude-") || request.model.startsWith("text-embedding-3-") ||
    request.model.startsWith("gemini-") || request.model.contains("amazon.nova-") ||
    request.model.startsWith("anthropic.claude-") || request.model.startsWith("llama3") ||
    request.model.startsWith("command-")
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {{name: no-o1-pro}}
spec: {{effect: deny, match: 'request.model == "o1-pro"', message: Ask the platform team for o1-pro.}}
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {{name: shadowed-model}}
spec: {{effect: deny, match: 'request.model == "gpt-4o"', mode: shadow}}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: one-in-five-seconds}}
spec:
  match: request.model == "gpt-4.1-nano"
  key: [identity.team]
  limit: {{requests: 1, per: 5s, burst: 1}}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: one-a-minute}}
spec:
  match: >-
    request.model in ["gpt-4.1", "text-embedding-3-large", "gemini-2.5-pro", "us.amazon.nova-pro-v1:0",
    "llama3.1", "command-a-03-2025"]
  key: [identity.team]
  limit: {{requests: 1, per: 1m, burst: 1}}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: small-answers}}
spec:
  match: request.model == "gpt-4.1-mini"
  key: [identity.team]
  limit: {{tokens: 200, per: 1m, burst: 200}}
  reserve: declared
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: team-tokens}}
spec:
  key: [identity.team]
  limit: {{tokens: 1, per: 24h, burst: {TEAM_TOKENS}}}
  reserve: declared
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: everybody}}
spec: {{limit: {{tokens: 100000000000, per: 1m, burst: 100000000000}}}}
"""

FILES = {"rules.yaml": RULES, "keys.yaml": "\n---\n".join(_api_key(n) for n in range(CALLERS))}
