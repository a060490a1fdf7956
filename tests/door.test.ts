/** The address that clients know outlives the processes behind it. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, get } from "node:http";
import { after, it } from "node:test";
import { fileURLToPath } from "node:url";
import { openDoor } from "#dapr/door.js";

const port = 12_490;
const script = fileURLToPath(new URL("./fixtures/behind-door.js", import.meta.url));
const agent = new Agent({ keepAlive: true });

/** Who answers. */
const ask = (at = port) =>
  new Promise<string>((resolve, reject) => {
    get({ host: "127.0.0.1", port: at, agent }, async (response) => {
      let body = "";
      for await (const chunk of response) body += chunk;
      resolve(body);
    }).once("error", reject);
  });

it("refuses nobody while processes come, drain and die behind it", async () => {
  const door = openDoor(port);
  assert.ok(door);
  const children: ChildProcess[] = [];
  after(() => {
    for (const child of children) child.kill("SIGKILL");
    door.close();
    agent.destroy();
  });
  const start = async (name: string, own: number) => {
    const child = spawn(process.execPath, [script, name, String(own)], {
      stdio: ["ignore", "pipe", "inherit", door.fd],
    });
    children.push(child);
    await once(child.stdout ?? child, "data");
    return child;
  };
  const answers: string[] = [];
  let goesOn = true;
  const client = async () => {
    while (goesOn) answers.push(await ask());
  };

  const first = await start("first", port);
  const clients = Promise.all([client(), client(), client()]);
  const second = await start("second", port + 1);
  assert.equal(await ask(port + 1), "second", "which can be asked by itself, too");
  first.kill("SIGTERM");
  assert.deepEqual(await once(first, "exit"), [0, null]);
  const seen = answers.length;
  while (answers.length < seen + 10) await ask();
  goesOn = false;
  await clients;
  assert.ok(answers.includes("first"));
  assert.deepEqual([...new Set(answers.slice(seen + 3))], ["second"]);

  agent.destroy(); // connections of a process that dies are lost, those that wait for one are not
  second.kill("SIGKILL");
  await once(second, "exit");
  const waiting = ask();
  await start("third", port + 2);
  assert.equal(await waiting, "third");
});
