/** As much of AMQP 0-9-1 as it takes to look at a RabbitMQ directly. */
import { connect, type Socket } from "node:net";

const frameEnd = 0xce;
const [methodFrame, headerFrame, bodyFrame] = [1, 2, 3];

const short = (text: string) => Buffer.concat([Buffer.from([Buffer.byteLength(text)]), Buffer.from(text)]);
const long = (text: string) => Buffer.concat([int32(Buffer.byteLength(text)), Buffer.from(text)]);
const int16 = (value: number) => Buffer.from([value >> 8, value & 255]);
const int32 = (value: number) => Buffer.concat([int16(value >>> 16), int16(value & 0xffff)]);
const none = int32(0); // an empty table
const table = (name: string, type: string, value: Buffer) => {
  const item = Buffer.concat([short(name), Buffer.from(type), value]);
  return Buffer.concat([int32(item.length), item]);
};
/** Otherwise a refused login is told by silence, for three seconds. */
const tellRefusal = table("capabilities", "F", table("authentication_failure_close", "t", Buffer.from([1])));

/** A connection with one channel in confirm mode. Every method waits for the answer. */
export class Amqp {
  #received = Buffer.alloc(0);
  #wake: () => void = () => {};
  #ended = false;

  private constructor(private readonly socket: Socket) {
    socket.on("data", (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    for (const event of ["error", "close"])
      socket.on(event, () => {
        this.#ended = true;
        this.#wake();
      });
  }

  /** @throws Error if there is no such account, or no server */
  static async open(port: number, user: string, password: string): Promise<Amqp> {
    const amqp = new Amqp(connect(port, "127.0.0.1"));
    amqp.socket.write("AMQP\0\0\x09\x01");
    await amqp.#answer(10, 10);
    amqp.#send(0, 10, 11, tellRefusal, short("PLAIN"), long(`\0${user}\0${password}`), short("en_US"));
    await amqp.#answer(10, 30);
    amqp.#send(0, 10, 31, int16(1), int32(131072), int16(0));
    amqp.#send(0, 10, 40, short("/"), short(""), Buffer.from([0]));
    await amqp.#answer(10, 41);
    amqp.#send(1, 20, 10, short(""));
    await amqp.#answer(20, 11);
    amqp.#send(1, 85, 10, Buffer.from([0]));
    await amqp.#answer(85, 11);
    return amqp;
  }

  /** Declares a durable queue. @returns how many messages it holds ready */
  async queue(name: string): Promise<number> {
    this.#send(1, 50, 10, int16(0), short(name), Buffer.from([2]), none);
    const answer = await this.#answer(50, 11);
    return answer.readUInt32BE(1 + answer.readUInt8(0));
  }

  /** Publishes a persistent message to a queue, or to an exchange, and waits until the broker has it. */
  async publish(queue: string, text: string, exchange = ""): Promise<void> {
    const body = Buffer.from(text);
    this.#send(1, 60, 40, int16(0), short(exchange), short(queue), Buffer.from([0]));
    const deliveryMode = Buffer.from([0x10, 0x00, 2]);
    this.#frame(headerFrame, 1, int16(60), int16(0), int32(0), int32(body.length), deliveryMode);
    this.#frame(bodyFrame, 1, body);
    await this.#answer(60, 80);
  }

  /** Looks at the first message of a queue, which stays there. */
  async peek(queue: string): Promise<string | undefined> {
    this.#send(1, 60, 70, int16(0), short(queue), Buffer.from([0]));
    const answer = await this.#next(methodFrame);
    const [of, method] = [answer.readUInt16BE(0), answer.readUInt16BE(2)];
    if (of === 60 && method === 72) return undefined;
    if (of !== 60 || method !== 71)
      throw new Error(`RabbitMQ answered ${of}.${method}: ${answer.subarray(4)}`);
    await this.#next(headerFrame);
    const body = await this.#next(bodyFrame);
    const tag = answer.subarray(4, 12);
    this.#send(1, 60, 120, tag, Buffer.from([2])); // nack, requeue
    return body.toString();
  }

  close(): void {
    this.socket.destroy();
  }

  #send(channel: number, of: number, method: number, ...args: Buffer[]): void {
    this.#frame(methodFrame, channel, int16(of), int16(method), ...args);
  }

  #frame(type: number | undefined, channel: number, ...parts: Buffer[]): void {
    const payload = Buffer.concat(parts);
    const head = Buffer.concat([Buffer.from([type ?? 0]), int16(channel), int32(payload.length)]);
    this.socket.write(Buffer.concat([head, payload, Buffer.from([frameEnd])]));
  }

  /** The arguments of a method that is expected now. */
  async #answer(of: number, method: number): Promise<Buffer> {
    const payload = await this.#next(methodFrame);
    const [gotOf, got] = [payload.readUInt16BE(0), payload.readUInt16BE(2)];
    if (gotOf === of && got === method) return payload.subarray(4);
    this.close();
    throw new Error(`RabbitMQ answered ${gotOf}.${got} instead of ${of}.${method}: ${payload.subarray(4)}`);
  }

  async #next(type: number | undefined): Promise<Buffer> {
    for (;;) {
      const length = this.#received.length >= 7 ? this.#received.readUInt32BE(3) : undefined;
      if (length !== undefined && this.#received.length >= length + 8) {
        const [got, payload] = [this.#received[0], this.#received.subarray(7, 7 + length)];
        this.#received = this.#received.subarray(length + 8);
        if (got === type) return payload;
        continue; // a heartbeat
      }
      if (this.#ended) throw new Error("RabbitMQ has closed the connection");
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error("RabbitMQ says nothing")), 10_000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
