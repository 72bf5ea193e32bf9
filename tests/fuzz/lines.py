"""A request line of every call that has a body, with a small body that its format accepts."""

from typing import Any

GATEWAY = "gateway.example:10000"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "tools": []}
CLAUDE = {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "system": "x"}
GEMINI = {
    "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
    "generationConfig": {"candidateCount": 1},
}
TRANSCRIBER = {"audio": {"input": {"transcription": {"model": "w"}}}}
SESSION = {"session": {"model": "m", "tools": [{"type": "function", "name": "f"}], **TRANSCRIBER}}
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": "hi"}]}],
    "inferenceConfig": {"maxTokens": 5},
    "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]},
}
MCP_CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "f", "arguments": {"x": [1]}},
}
COHERE_TURN = {"role": "USER", "message": "b"}
VERTEX = "/v1/projects/p/locations/l/publishers"
GOOGLE, AIPLATFORM = "generativelanguage.googleapis.com", "us-central1-aiplatform.googleapis.com"
BEDROCK, MISTRAL = "bedrock-runtime.us-east-1.amazonaws.com", "api.mistral.ai"
WATSONX, WRITER = "us-south.ml.cloud.ibm.com", "api.writer.com"

# Bodies of forms are what the form would hold; `FILE` stands for a file.
FILE = "@file"

Line = tuple[str, str, dict[str, Any]]

LINES: tuple[Line, ...] = (
    (GATEWAY, "/v1/chat/completions", CHAT),
    ("api.openai.com", "/v1/chat/completions", {**CHAT, "stream": True, "n": 2}),
    ("r.openai.azure.com", "/openai/deployments/d/chat/completions?api-version=2024-10-21", CHAT),
    (GATEWAY, "/v1/completions", {"model": "m", "prompt": ["a", "b"], "max_tokens": 3, "n": 2}),
    (GATEWAY, "/v1/responses", {"model": "m", "input": [{"role": "user", "content": "hi"}], "tools": []}),
    (GATEWAY, "/v1/embeddings", {"model": "m", "input": ["a", [1, 2]]}),
    (GATEWAY, "/v1/moderations", {"input": [{"type": "text", "text": "a"}]}),
    (GATEWAY, "/v1/images/generations", {"model": "m", "prompt": "a", "n": 2, "svg": {"model": "x"}}),
    (
        GATEWAY,
        "/v1/images/edits",
        {"model": "m", "prompt": "a", "images": [{"image_url": "data:image/png;base64,AA"}]},
    ),
    (GATEWAY, "/v1/images/edits", {"model": "m", "prompt": "a", "image": FILE, "n": "2", "svg[model]": "x"}),
    (GATEWAY, "/v1/audio/speech", {"model": "m", "input": "a", "voice": {"id": "v"}}),
    (GATEWAY, "/v1/audio/transcriptions", {"model": "m", "file": FILE, "stream": "true", "prompt": "p"}),
    (GATEWAY, "/v1/realtime/client_secrets", SESSION),
    (GATEWAY, "/v1/realtime/calls", {"sdp": "v=0", "session": '{"model":"m"}', "x": FILE}),
    (GATEWAY, "/v1/files", {"purpose": "batch", "file": FILE}),
    (GATEWAY, "/v1/batches", {"input_file_id": "f", "endpoint": "/v1/responses"}),
    (GATEWAY, "/v1/fine_tuning/jobs", {"model": "m", "training_file": "f"}),
    (GATEWAY, "/v1/threads/t/runs", {"assistant_id": "a", "model": "m"}),
    (GATEWAY, "/v1/rerank", {"model": "m", "query": "q", "documents": ["a", {"text": "b"}]}),
    (GATEWAY, "/v1/messages", {**CLAUDE, "model": "m", "tools": [{"name": "f", "input_schema": {}}]}),
    (GATEWAY, "/v1/messages/batches", {"requests": [{"custom_id": "a", "params": {**CLAUDE, "model": "m"}}]}),
    (GATEWAY, "/v1/complete", {"model": "m", "prompt": "a", "max_tokens_to_sample": 5}),
    (GOOGLE, "/v1beta/models/m:generateContent", GEMINI),
    (GOOGLE, "/v1beta/models/m:embedContent", {"content": {"parts": [{"text": "a"}]}}),
    (GOOGLE, "/v1beta/interactions", {"model": "m", "input": "hi"}),
    (AIPLATFORM, f"{VERTEX}/google/models/m:generateContent", GEMINI),
    (
        AIPLATFORM,
        f"{VERTEX}/anthropic/models/m:rawPredict",
        {**CLAUDE, "anthropic_version": "vertex-2023-10-16"},
    ),
    (AIPLATFORM, f"{VERTEX}/mistralai/models/m:rawPredict", CHAT),
    (BEDROCK, "/model/anthropic.claude-x/converse", CONVERSE),
    (BEDROCK, "/model/anthropic.claude-x/invoke", {**CLAUDE, "anthropic_version": "bedrock-2023-05-31"}),
    (BEDROCK, "/model/amazon.titan-text/invoke", {"inputText": "a", "textGenerationConfig": {}}),
    (BEDROCK, "/model/meta.llama3/invoke", {"prompt": "a", "max_gen_len": 5}),
    (
        "api.cohere.com",
        "/v1/chat",
        {"model": "m", "message": "a", "chat_history": [{"role": "USER", "message": "b"}]},
    ),
    ("api.cohere.com", "/v1/rerank", {"model": "m", "query": "q", "documents": ["a"]}),
    ("api.cohere.com", "/v2/chat", {**CHAT, "documents": ["a"]}),
    ("api.cohere.com", "/v2/embed", {"model": "m", "texts": ["a"], "input_type": "x"}),
    (MISTRAL, "/v1/ocr", {"model": "m", "document": {"type": "document_url", "document_url": "https://x"}}),
    (MISTRAL, "/v1/conversations", {"model": "m", "inputs": "a"}),
    (GATEWAY, "/api/chat", CHAT),
    (GATEWAY, "/api/generate", {"model": "m", "prompt": "a", "options": {"num_predict": 3}}),
    (GATEWAY, "/generate", {"inputs": "a", "parameters": {"max_new_tokens": 5}}),
    (WRITER, "/v1/chat", CHAT),
    (
        WATSONX,
        "/ml/v1/text/generation?version=2024-05-31",
        {"model_id": "m", "input": "a", "project_id": "p"},
    ),
    ("api.replicate.com", "/v1/predictions", {"version": "v", "input": {"prompt": "a"}}),
    (GATEWAY, "/invocations", CHAT),
    (GATEWAY, "/mcp", MCP_CALL),
)
