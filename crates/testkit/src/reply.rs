//! What a provider answers, as values: request in, reply out, no I/O and no clock. A reply
//! holds exactly as many tokens as the request's `max_tokens` (or `max_completion_tokens`,
//! `max_output_tokens`) asks for. Streams follow the providers' published event formats;
//! OpenAI's carry the `obfuscation` field, which evens out the sizes of events.

use std::fmt;

use serde_json::{Value, json};

/// Tokens of a reply when the request does not say.
const TOKENS_DEFAULT: u64 = 64;
/// Most tokens of a reply.
const TOKENS_LIMIT: u64 = 1_000_000;
/// Characters of text and obfuscation together in each of OpenAI's events.
const EVENT_TEXT: usize = 16;
/// What replies are made of, one token each.
const WORDS: [&str; 8] = [" the", " model", " said", " a", " word", " again", ",", " and"];
/// A page for browsers, with a second request in it.
const PAGE: &str = "<!doctype html><title>Provider simulator</title><p id=said>waiting</p>\
    <script>fetch('/v1/models').then(r => r.text()).then(t => said.textContent = 'said ' + t.length)</script>";

/// What OpenAI's API sends beside the body of a completion, by the names and sizes of its documented
/// rate-limit headers and of what stands before it; they are part of what a device sees.
const OPENAI_HEADERS: &[(&str, &str)] = &[
    ("access-control-expose-headers", "X-Request-ID"),
    ("openai-organization", "toktra-simulated-organisation"),
    ("openai-processing-ms", "1234"),
    ("openai-project", "proj_SimulatedByToktra0000000"),
    ("openai-version", "2020-10-01"),
    ("x-envoy-upstream-service-time", "1240"),
    ("x-ratelimit-limit-requests", "10000"),
    ("x-ratelimit-limit-tokens", "2000000"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("x-ratelimit-remaining-tokens", "1999000"),
    ("x-ratelimit-reset-requests", "6ms"),
    ("x-ratelimit-reset-tokens", "12ms"),
    ("x-request-id", "req_0123456789abcdef0123456789abcdef"),
    ("cf-cache-status", "DYNAMIC"),
    ("set-cookie", COOKIE),
    ("set-cookie", COOKIE),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("x-content-type-options", "nosniff"),
    ("server", "cloudflare"),
    ("cf-ray", "0123456789abcdef-FRA"),
    ("alt-svc", "h3=\":443\"; ma=86400"),
];
/// The same for Anthropic's.
const ANTHROPIC_HEADERS: &[(&str, &str)] = &[
    ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000"),
    ("anthropic-ratelimit-input-tokens-limit", "2000000"),
    ("anthropic-ratelimit-input-tokens-remaining", "2000000"),
    ("anthropic-ratelimit-input-tokens-reset", "2026-01-01T00:00:00Z"),
    ("anthropic-ratelimit-output-tokens-limit", "400000"),
    ("anthropic-ratelimit-output-tokens-remaining", "400000"),
    ("anthropic-ratelimit-output-tokens-reset", "2026-01-01T00:00:00Z"),
    ("anthropic-ratelimit-requests-limit", "4000"),
    ("anthropic-ratelimit-requests-remaining", "3999"),
    ("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:00Z"),
    ("request-id", "req_SimulatedByToktra000000"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("via", "1.1 google"),
    ("cf-cache-status", "DYNAMIC"),
    ("x-robots-tag", "none"),
    ("server", "cloudflare"),
    ("cf-ray", "0123456789abcdef-FRA"),
];
const COOKIE: &str = "__simulated=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\
    -1767225600-1.0.1.1; path=/; expires=Thu, 01-Jan-26 00:30:00 GMT; domain=.example; HttpOnly; Secure; SameSite=None";

/// A piece of a reply, sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Plaintext.
    pub bytes: Vec<u8>,
    /// Tokens in it.
    pub tokens: u64,
}

/// An answer to one request.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// Other headers.
    pub headers: &'static [(&'static str, &'static str)],
    /// Tokens of the prompt, as a provider would count them.
    pub tokens_in: u64,
    /// Whether the chunks follow one another at a pace.
    pub is_stream: bool,
    /// The body.
    pub chunks: Box<dyn Iterator<Item = Chunk> + Send>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Answers a request.
pub fn reply(method: &str, path: &str, body: &[u8]) -> Reply {
    match (method, path) {
        ("POST", "/v1/chat/completions") => {
            Reply { headers: OPENAI_HEADERS, ..completion(body, openai_stream, openai_whole) }
        }
        ("POST", "/v1/messages") => {
            Reply { headers: ANTHROPIC_HEADERS, ..completion(body, anthropic_stream, anthropic_whole) }
        }
        ("GET" | "HEAD", "/") => whole(200, "text/html", 0, PAGE.into(), 0),
        ("GET" | "HEAD", "/v1/models") => {
            whole(200, "application/json", 0, json!({"object": "list", "data": []}).to_string(), 0)
        }
        ("GET" | "HEAD", path) => match path.strip_prefix("/bytes/").and_then(|size| size.parse().ok()) {
            Some(size) => bytes(size),
            None => error(404, "not_found"),
        },
        _ => error(405, "method_not_allowed"),
    }
}

/// What was asked, as far as it matters.
#[derive(Clone, Copy, Debug)]
struct Asked {
    tokens_in: u64,
    tokens_out: u64,
    stream: bool,
}

type Stream = fn(Asked) -> Box<dyn Iterator<Item = Chunk> + Send>;

fn completion(body: &[u8], stream: Stream, entire: fn(Asked) -> Value) -> Reply {
    let Some(asked) = serde_json::from_slice(body).ok().as_ref().and_then(asked) else {
        return error(400, "invalid_request_error");
    };
    if asked.stream {
        let (content_type, chunks) = ("text/event-stream; charset=utf-8", stream(asked));
        return Reply {
            status: 200,
            content_type,
            headers: &[],
            tokens_in: asked.tokens_in,
            is_stream: true,
            chunks,
        };
    }
    whole(200, "application/json", asked.tokens_in, entire(asked).to_string(), asked.tokens_out)
}

fn asked(body: &Value) -> Option<Asked> {
    let limit = ["max_completion_tokens", "max_tokens", "max_output_tokens"]
        .iter()
        .find_map(|key| body.get(key)?.as_u64())
        .unwrap_or(TOKENS_DEFAULT);
    let messages = body.get("messages")?.as_array()?;
    let characters: usize =
        messages.iter().filter_map(|message| message.get("content")).map(characters).sum();
    Some(Asked {
        tokens_in: (characters as u64).div_ceil(4),
        tokens_out: limit.min(TOKENS_LIMIT),
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
    })
}

fn characters(content: &Value) -> usize {
    match content {
        Value::String(text) => text.chars().count(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")).map(characters).sum(),
        _ => 0,
    }
}

fn word(index: u64) -> &'static str {
    WORDS[(index % WORDS.len() as u64) as usize]
}

fn text(tokens: u64) -> String {
    (0..tokens).map(word).collect()
}

fn openai_event(delta: Value, finish: Option<&str>) -> String {
    let said = delta.get("content").and_then(Value::as_str).unwrap_or_default().len();
    let padding: String = "aZ3kQ9xLmR7tBw2E".chars().take(EVENT_TEXT.saturating_sub(said)).collect();
    // A string and not a `Value`, so that the fields come in the provider's order.
    format!(
        "data: {{\"id\":\"chatcmpl-SimuLatedReplyOfToktra0000000\",\"object\":\"chat.completion.chunk\",\
         \"created\":1767225600,\"model\":\"gpt-4o-mini-2024-07-18\",\
         \"system_fingerprint\":\"fp_0123456789\",\"choices\":[{{\"index\":0,\"delta\":{delta},\
         \"logprobs\":null,\"finish_reason\":{finish}}}],\"obfuscation\":\"{padding}\"}}\n\n",
        finish = finish.map_or("null".into(), |reason| format!("\"{reason}\"")),
    )
}

fn openai_stream(asked: Asked) -> Box<dyn Iterator<Item = Chunk> + Send> {
    let first = openai_event(json!({"role": "assistant", "content": ""}), None);
    let middle = (0..asked.tokens_out).map(|index| openai_event(json!({"content": word(index)}), None));
    let last = openai_event(json!({}), Some("length")) + "data: [DONE]\n\n";
    events(first, middle, last)
}

fn openai_whole(asked: Asked) -> Value {
    json!({
        "id": "chatcmpl-SimuLatedReplyOfToktra0000000",
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text(asked.tokens_out), "refusal": null},
            "logprobs": null,
            "finish_reason": "length",
        }],
        "usage": {
            "prompt_tokens": asked.tokens_in,
            "completion_tokens": asked.tokens_out,
            "total_tokens": asked.tokens_in + asked.tokens_out,
        },
    })
}

fn anthropic_event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

fn anthropic_message(asked: Asked, content: Value, tokens_out: u64, reason: Value) -> Value {
    json!({
        "id": "msg_SimulatedReplyOfToktra01",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": null,
        "usage": {"input_tokens": asked.tokens_in, "output_tokens": tokens_out},
    })
}

fn anthropic_stream(asked: Asked) -> Box<dyn Iterator<Item = Chunk> + Send> {
    let message = anthropic_message(asked, json!([]), 1, Value::Null);
    let first = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    let middle = (0..asked.tokens_out).map(|index| {
        let delta = json!({"type": "text_delta", "text": word(index)});
        anthropic_event(&json!({"type": "content_block_delta", "index": 0, "delta": delta}))
    });
    let delta = json!({"stop_reason": "max_tokens", "stop_sequence": null});
    let last = [
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": asked.tokens_out}}),
        json!({"type": "message_stop"}),
    ];
    events(first.iter().map(anthropic_event).collect(), middle, last.iter().map(anthropic_event).collect())
}

fn anthropic_whole(asked: Asked) -> Value {
    let content = json!([{"type": "text", "text": text(asked.tokens_out)}]);
    anthropic_message(asked, content, asked.tokens_out, "max_tokens".into())
}

fn events(
    first: String,
    middle: impl Iterator<Item = String> + Send + 'static,
    last: String,
) -> Box<dyn Iterator<Item = Chunk> + Send> {
    let frame = |text: String| Chunk { bytes: text.into_bytes(), tokens: 0 };
    let token = |text: String| Chunk { bytes: text.into_bytes(), tokens: 1 };
    Box::new(std::iter::once(frame(first)).chain(middle.map(token)).chain(std::iter::once(frame(last))))
}

fn bytes(size: u64) -> Reply {
    const BLOCK: u64 = 64 * 1024;
    let blocks = (0..size.div_ceil(BLOCK))
        .map(move |index| Chunk { bytes: vec![b'x'; BLOCK.min(size - index * BLOCK) as usize], tokens: 0 });
    Reply {
        status: 200,
        content_type: "application/octet-stream",
        headers: &[],
        tokens_in: 0,
        is_stream: false,
        chunks: Box::new(blocks),
    }
}

fn error(status: u16, kind: &str) -> Reply {
    let body = json!({"error": {"type": kind, "message": "the simulator does not answer this"}});
    whole(status, "application/json", 0, body.to_string(), 0)
}

fn whole(status: u16, content_type: &'static str, tokens_in: u64, body: String, tokens: u64) -> Reply {
    let chunk = Chunk { bytes: body.into_bytes(), tokens };
    Reply {
        status,
        content_type,
        headers: &[],
        tokens_in,
        is_stream: false,
        chunks: Box::new(std::iter::once(chunk)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, stream: bool) -> Vec<Chunk> {
        let body = json!({"max_tokens": 40, "stream": stream, "messages": [{"role": "user", "content": "hello you"}]});
        let reply = reply("POST", path, body.to_string().as_bytes());
        assert_eq!((reply.status, reply.tokens_in), (200, 3));
        reply.chunks.collect()
    }

    #[test]
    fn a_reply_has_exactly_the_tokens_that_were_asked_for() {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            for stream in [true, false] {
                let tokens: u64 = ask(path, stream).iter().map(|chunk| chunk.tokens).sum();
                assert_eq!(tokens, 40, "{path}, stream {stream}");
            }
        }
    }

    #[test]
    fn obfuscation_evens_out_the_sizes_of_openai_events() {
        let chunks = ask("/v1/chat/completions", true);
        let sizes: std::collections::HashSet<usize> =
            chunks.iter().filter(|chunk| chunk.tokens == 1).map(|chunk| chunk.bytes.len()).collect();
        assert_eq!(sizes.len(), 1, "{sizes:?}");
        // With record and frame headers (31 bytes over HTTP/2) some 328 bytes a token.
        assert!(sizes.iter().all(|size| (285..=305).contains(size)), "{sizes:?}");
    }

    #[test]
    fn nonsense_gets_an_error_and_no_panic() {
        assert_eq!(reply("POST", "/v1/messages", b"{").status, 400);
        assert_eq!(reply("POST", "/v1/messages", b"{}").status, 400);
        assert_eq!(reply("PUT", "/", b"").status, 405);
        assert_eq!(reply("GET", "/bytes/-1", b"").status, 404);
    }
}
