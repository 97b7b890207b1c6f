"""How a provider's own SDK fails where providers are blocked: python blocked.py openai|anthropic

Prints the exception's name and how long it took, in milliseconds; `none` if the request got through.
One second is all the SDK is given for any step, so what hangs is a time-out and not a connection error.
"""
import sys
import time

ask = {"max_tokens": 3, "messages": [{"role": "user", "content": "Say something."}]}
if sys.argv[1] == "openai":
    import openai as sdk

    client = sdk.OpenAI(api_key="sk-simulated", max_retries=0, timeout=1)
    send, model = client.chat.completions.create, "gpt-4o-mini"
else:
    import anthropic as sdk

    client = sdk.Anthropic(api_key="sk-simulated", max_retries=0, timeout=1)
    send, model = client.messages.create, "claude-sonnet-4-5"

start = time.monotonic()
try:
    send(model=model, **ask)
    outcome = "none"
except sdk.APIError as error:
    outcome = type(error).__name__
print(outcome, round((time.monotonic() - start) * 1000))
