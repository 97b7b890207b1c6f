// Node's own fetch: node fetch.mjs URL TOKENS
const [url, tokens] = process.argv.slice(2);
const body = JSON.stringify({
  max_tokens: Number(tokens),
  stream: true,
  messages: [{ role: "user", content: "Say something." }],
});
const reply = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json" } });
const text = await reply.text();
console.log(text.split("\n").filter((line) => line.includes('"content":" ') || line.includes('"content":","')).length);
