// Runs in a pod: customers who order, one piece each, and who ask again with the same Idempotency-Key until they know.
// CONFIG: {base, clients, seconds, body}. Prints what came of it as JSON.
const { base, clients, seconds, body } = JSON.parse(process.env.CONFIG);
const began = performance.now();
const result = { ids: [], refused: 0, unanswered: 0, odd: [], waits: [], longestGap: 0 };
let last = began;

async function ask(key) {
  const answer = await fetch(`${base}/orders`, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": key },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  });
  return { status: answer.status, body: await answer.json(), after: answer.headers.get("retry-after") };
}

async function order() {
  const key = crypto.randomUUID();
  const since = performance.now();
  for (;;) {
    let reply;
    try {
      reply = await ask(key);
    } catch {
      result.unanswered++;
    }
    if (reply?.status === 201) {
      const now = performance.now();
      result.ids.push(reply.body.id);
      result.waits.push(now - since);
      result.longestGap = Math.max(result.longestGap, now - last);
      last = now;
      return;
    }
    if (reply?.status === 503) {
      result.refused++;
      if (!(Number(reply.after) > 0))
        result.odd.push(`503 without Retry-After: ${JSON.stringify(reply.body)}`);
    } else if (reply !== undefined) {
      result.odd.push(`${reply.status} ${JSON.stringify(reply.body)}`);
      return;
    }
    if (performance.now() - since > 120_000) {
      result.odd.push(`${key}: not known after two minutes`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

await Promise.all(
  Array.from({ length: clients }, async () => {
    while (performance.now() - began < seconds * 1000) await order();
  }),
);
const sorted = result.waits.sort((one, other) => one - other);
const at = (share) => Math.round(sorted[Math.floor(share * (sorted.length - 1))] ?? 0);
const { waits, ...rest } = result;
console.log(
  JSON.stringify({ ...rest, p50: at(0.5), p99: at(0.99), seconds: (performance.now() - began) / 1000 }),
);
