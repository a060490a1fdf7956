// `helm test`: places an order at the gateway that the first argument names, sees it in the view, cancels it, and sees that.
const [base] = process.argv.slice(1);

async function ask(method, path, body) {
  const headers = body && { "content-type": "application/json" };
  const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  console.log(`${method} ${path}: ${answer.status} ${text.slice(0, 400)}`);
  return { status: answer.status, body: text === "" ? undefined : JSON.parse(text) };
}

function expect(holds, what) {
  if (!holds) throw new Error(`not as expected: ${what}`);
}

async function until(what, holds) {
  for (const end = Date.now() + 60_000; ; await new Promise((resolve) => setTimeout(resolve, 200))) {
    const found = await holds();
    if (found !== undefined) return found;
    expect(Date.now() < end, `${what} within a minute`);
  }
}

const order = await ask("POST", "/orders", {
  ...{ productId: 1, qty: 1, customerId: "helm-test", phoneNumber: "01000000000", address: "Seoul" },
});
expect(order.status === 201, "the order is placed");
const path = `/orderStatuses/${order.body.id}`;
const seen = await until("the view shows it", async () => {
  const { status, body } = await ask("GET", path);
  return status === 200 ? body : undefined;
});
const cancelled = await ask("DELETE", `/orders/${order.body.id}`);
expect(cancelled.status < 300, "the order is cancelled");
await until("the view shows that it is cancelled", async () => {
  const { body } = await ask("GET", path);
  return /cancel/i.test(JSON.stringify(body)) && JSON.stringify(body) !== JSON.stringify(seen)
    ? body
    : undefined;
});
console.log("placed, seen, cancelled");
