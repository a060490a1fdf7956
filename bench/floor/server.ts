/** A bare server: answers everything at once. What it costs to call it is what Dapr costs. */
import { createServer } from "node:http";

const server = createServer((request, response) => {
  request.resume().on("end", () => response.setHeader("content-type", "application/json").end("{}"));
});
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env.APP_PORT), "127.0.0.1");
process.on("SIGTERM", () => server.close(() => process.exit(0)).closeAllConnections());
