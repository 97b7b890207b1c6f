"""Anthropic's own SDK against its own host name: python anthropic_message.py stream|whole TOKENS"""
import sys

import anthropic

tokens = int(sys.argv[2])
ask = {
    "model": "claude-sonnet-4-5",
    "max_tokens": tokens,
    "messages": [{"role": "user", "content": "Say something."}],
}
with anthropic.Anthropic(api_key="sk-simulated", max_retries=0, timeout=60) as client:
    if sys.argv[1] == "stream":
        with client.messages.stream(**ask) as reply:
            print(sum(1 for _ in reply.text_stream))
    else:
        print(client.messages.create(**ask).usage.output_tokens)
