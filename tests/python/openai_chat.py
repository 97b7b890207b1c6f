"""OpenAI's own SDK against its own host name: python openai_chat.py stream|whole TOKENS [PROMPT]"""
import sys

import openai

stream, tokens = sys.argv[1] == "stream", int(sys.argv[2])
prompt = sys.argv[3] if len(sys.argv) > 3 else "Say something."
with openai.OpenAI(api_key="sk-simulated", max_retries=0, timeout=60) as client:
    reply = client.chat.completions.create(
        model="gpt-4o-mini",
        max_tokens=tokens,
        stream=stream,
        messages=[{"role": "user", "content": prompt}],
    )
    if stream:
        words = [c.choices[0].delta.content for c in reply if c.choices and c.choices[0].delta.content]
        print(len(words))
    else:
        print(reply.usage.completion_tokens)
