// The Node reference server as a peer for interoperability tests and benchmarks.
//
//   node peer.mjs [--host H] [--port N] [--data DIR] [--long-poll-timeout S] [--no-compression]
//
// In memory without --data. Prints `listening on http://HOST:PORT/v1/stream`; SIGTERM or SIGINT ends it.

import { DurableStreamTestServer } from "@durable-streams/server"
import { parseArgs } from "node:util"

const { values } = parseArgs({
  options: {
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "0" },
    data: { type: "string" },
    "long-poll-timeout": { type: "string", default: "30" },
    "no-compression": { type: "boolean", default: false },
  },
})

const server = new DurableStreamTestServer({
  host: values.host,
  port: Number(values.port),
  dataDir: values.data,
  longPollTimeout: Number(values["long-poll-timeout"]) * 1000,
  compression: !values["no-compression"],
})

await server.start()
console.log(`listening on ${server.url ?? server.baseUrl}/v1/stream`)

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    const late = setTimeout(() => process.exit(0), 2000)
    late.unref()
    server.stop().finally(() => process.exit(0))
  })
}
