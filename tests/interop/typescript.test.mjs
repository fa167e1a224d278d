// The official TypeScript client (@durable-streams/client on npm) against the server at DS_TEST_URL;
// started by test_typescript_client.py.

import { describe, expect, test } from "vitest"
import {
  DurableStream,
  FetchError,
  IdempotentProducer,
  StaleEpochError,
  stream,
} from "@durable-streams/client"

const root = process.env.DS_TEST_URL ?? "http://127.0.0.1:4437/v1/stream"
// Above the server's long-poll timeout, so that a tailing client lives through an empty one.
const pause = () => new Promise((resolve) => setTimeout(resolve, Number(process.env.DS_TEST_PAUSE_MS ?? 800)))

let number = 0
const newUrl = () => `${root}/typescript/${process.pid}-${number++}`
const encode = (text) => new TextEncoder().encode(text)
const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i)
const join = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]))

async function readJson(url, offset) {
  return (await stream({ url, offset, live: false })).json()
}

// Collects what a live session delivers; `until(n)` waits for n items.
function collect(res, subscribe = "subscribeJson", items = (batch) => batch.items) {
  const got = []
  const batches = []
  let wake = () => {}
  res[subscribe]((batch) => {
    got.push(...items(batch))
    batches.push(batch)
    wake()
  })
  return {
    got,
    batches,
    async until(n) {
      while (got.length < n) await new Promise((resolve) => (wake = resolve))
      return got
    },
  }
}

describe("streams", () => {
  test("bytes, from create to delete", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "application/octet-stream" })
    await handle.append(everyByte)
    const middle = (await handle.head()).offset
    await handle.append(encode("\r\n\0 more"))
    const whole = join(everyByte, encode("\r\n\0 more"))

    const res = await stream({ url, live: false })
    expect(await res.body()).toEqual(whole)
    expect(res.upToDate).toBe(true)
    expect(res.offset).toBe((await handle.head()).offset)
    expect(await (await stream({ url, offset: middle, live: false })).body()).toEqual(encode("\r\n\0 more"))

    expect((await handle.head()).streamClosed).toBe(false)
    const { finalOffset } = await handle.close({ body: encode("end") })
    expect(finalOffset > middle).toBe(true)
    expect((await handle.close()).finalOffset).toBe(finalOffset)
    expect(await handle.head()).toMatchObject({ exists: true, offset: finalOffset, streamClosed: true })
    await expect(handle.append(encode("late"))).rejects.toMatchObject({ status: 409 })
    const closed = await stream({ url, live: false })
    expect(await closed.body()).toEqual(join(whole, encode("end")))
    expect(closed.streamClosed).toBe(true)

    await handle.delete()
    expect(await DurableStream.head({ url })).toEqual({ exists: false })
  })

  test("JSON items come back in order and resume from any offset", async () => {
    const url = newUrl()
    const items = [{ n: 1, text: "żółw 🐢" }, { deep: [[1], [2, [3]]] }, "three", 4.5, null, true]
    const handle = await DurableStream.create({ url, contentType: "application/json", batching: false })
    const offsets = []
    for (const item of items) {
      await handle.append(JSON.stringify(item))
      offsets.push((await handle.head()).offset)
    }
    expect(await readJson(url)).toEqual(items)
    for (const [i, offset] of offsets.entries()) {
      expect(await readJson(url, offset)).toEqual(items.slice(i + 1))
    }
    expect([...offsets].sort()).toEqual(offsets)
  })

  test("batched appends keep their order", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "application/json" })
    await Promise.all(Array.from({ length: 200 }, (_, n) => handle.append(JSON.stringify({ n }))))
    expect((await readJson(url)).map((item) => item.n)).toEqual(Array.from({ length: 200 }, (_, n) => n))
  })

  test("all of a stream of some megabytes, without following it", async () => {
    const url = newUrl()
    await DurableStream.create({ url, contentType: "application/json" })
    const headers = { "Content-Type": "application/json" }
    for (let i = 0; i < 6; i++) {
      const body = JSON.stringify(Array.from({ length: 1000 }, (_, n) => ({ n: 1000 * i + n, pad: "x".repeat(1000) })))
      expect((await fetch(url, { method: "POST", headers, body })).ok).toBe(true)
    }
    const res = await stream({ url, live: false })
    expect((await res.json()).map((item) => item.n)).toEqual(Array.from({ length: 6000 }, (_, n) => n))
    expect(res.upToDate).toBe(true)
  })

  test("what comes behind the first answer is read from its offset", async () => {
    const url = newUrl()
    await DurableStream.create({ url, contentType: "application/octet-stream" })
    const headers = { "Content-Type": "application/octet-stream" }
    const body = new Uint8Array(1 << 20)
    for (let i = 0; i < 20; i++) {
      body.fill(i)
      expect((await fetch(url, { method: "POST", headers, body })).ok).toBe(true)
    }
    const parts = []
    let offset, upToDate
    while (!upToDate) {
      const res = await stream({ url, offset, live: false })
      parts.push(await res.body())
      ;({ offset, upToDate } = res)
    }
    const whole = Buffer.concat(parts)
    expect(whole.length).toBe(20 << 20)
    expect(Array.from({ length: 20 }, (_, i) => whole[i << 20])).toEqual(Array.from({ length: 20 }, (_, i) => i))
  })

  test("a streamed body is one append", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "text/plain" })
    async function* pieces() {
      for (let i = 0; i < 50; i++) yield `piece ${i}\n`
    }
    await handle.appendStream(pieces())
    const text = await (await stream({ url, live: false })).text()
    expect(text).toBe(Array.from({ length: 50 }, (_, i) => `piece ${i}\n`).join(""))
  })

  test("a stream created closed, and conflicts", async () => {
    const url = newUrl()
    await DurableStream.create({ url, contentType: "text/plain", body: "all of it", closed: true })
    const res = await stream({ url })
    expect(await res.text()).toBe("all of it")
    expect(res.streamClosed).toBe(true)
    await expect(DurableStream.create({ url, contentType: "application/json" })).rejects.toMatchObject({ status: 409 })
    const ordered = await DurableStream.create({ url: newUrl(), contentType: "text/plain" })
    await ordered.append("a", { seq: "002" })
    await expect(ordered.append("b", { seq: "001" })).rejects.toThrow()
  })
})

describe("tailing", () => {
  for (const live of ["long-poll", "sse", true]) {
    test(`JSON, live: ${live}, until the stream closes`, async () => {
      const url = newUrl()
      const handle = await DurableStream.create({ url, contentType: "application/json", body: `[{"n":0}]` })
      const res = await stream({ url, live })
      const tail = collect(res)
      await tail.until(1)
      await pause()
      await handle.append(JSON.stringify({ n: "line\nbreak\r\n" }))
      await tail.until(2)
      expect(tail.batches.at(-1).offset).toBe((await handle.head()).offset)
      await handle.append(JSON.stringify({ n: 2 }))
      await tail.until(3)
      await pause()
      await handle.close({ body: JSON.stringify({ n: "last" }) })
      await tail.until(4)
      await res.closed
      expect(tail.got.map((item) => item.n)).toEqual([0, "line\nbreak\r\n", 2, "last"])
      expect(res.streamClosed).toBe(true)
    })

    test(`bytes, live: ${live}`, async () => {
      const url = newUrl()
      const handle = await DurableStream.create({
        url,
        contentType: "application/octet-stream",
        body: everyByte,
      })
      const res = await stream({ url, live })
      const tail = collect(res, "subscribeBytes", (chunk) => chunk.data)
      await tail.until(256)
      await pause()
      await handle.append(everyByte)
      await tail.until(512)
      res.cancel()
      expect(Uint8Array.from(tail.got)).toEqual(join(everyByte, everyByte))
    })

    test(`a session resumes from a saved offset, live: ${live}`, async () => {
      const url = newUrl()
      const handle = await DurableStream.create({ url, contentType: "application/json", body: `[1,2]` })
      const before = await stream({ url, live })
      const first = collect(before)
      await first.until(2)
      const saved = first.batches.at(-1).offset
      before.cancel()
      await handle.append("3")
      const after = await stream({ url, live, offset: saved })
      const second = collect(after)
      await second.until(1)
      await handle.append("4")
      expect(await second.until(2)).toEqual([3, 4])
      after.cancel()
    })

    test(`only what is new, offset: now, live: ${live}`, async () => {
      const url = newUrl()
      const handle = await DurableStream.create({ url, contentType: "text/plain", body: "old" })
      const opened = stream({ url, live, offset: "now" })
      await pause()
      await handle.append("new")
      const res = await opened
      const tail = collect(res, "subscribeText", (chunk) => (chunk.text ? [chunk.text] : []))
      // The session may have opened before or after the append; the second append settles it.
      await handle.append("er")
      await tail.until(1)
      res.cancel()
      expect(["new", "newer", "er"]).toContain(tail.got.join(""))
    })
  }
})

describe("IdempotentProducer", () => {
  const numbers = (n) => Array.from({ length: n }, (_, i) => i)

  test("pipelined batches arrive once and in order", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "application/json" })
    const errors = []
    const producer = new IdempotentProducer(handle, "pipeline", {
      maxBatchBytes: 200,
      lingerMs: 0,
      maxInFlight: 5,
      onError: (error) => errors.push(error),
    })
    for (const n of numbers(500)) producer.append(JSON.stringify({ n }))
    await producer.flush()
    expect(errors).toEqual([])
    expect((await readJson(url)).map((item) => item.n)).toEqual(numbers(500))
    expect(producer.lastSuccessfulOffset).toBe((await handle.head()).offset)

    await producer.restart()
    producer.append(JSON.stringify({ n: 500 }))
    await producer.flush()
    expect(producer.epoch).toBe(1)
    expect((await readJson(url)).map((item) => item.n)).toEqual(numbers(501))
  })

  test("requests that are sent twice count once", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "application/json" })
    const errors = []
    let calls = 0
    // As of a network that loses every third response: the server has the request, and gets it again.
    const lossy = async (...args) => {
      if (++calls % 3 === 0) await (await fetch(...args)).arrayBuffer()
      return fetch(...args)
    }
    const producer = new IdempotentProducer(handle, "lossy", {
      maxBatchBytes: 50,
      lingerMs: 0,
      fetch: lossy,
      onError: (error) => errors.push(error),
    })
    for (const n of numbers(200)) producer.append(JSON.stringify({ n }))
    await producer.flush()
    expect(errors).toEqual([])
    expect(calls).toBeGreaterThan(10)
    expect((await readJson(url)).map((item) => item.n)).toEqual(numbers(200))
  })

  test("what a restarted process sends again is dropped", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "text/plain" })
    for (const body of ["once", "once", "something else"]) {
      // The same id, epoch and seq each time, as of a process that lost its memory.
      const producer = new IdempotentProducer(handle, "one")
      producer.append(body)
      await producer.detach()
    }
    expect(await (await stream({ url, live: false })).text()).toBe("once")
  })

  test("a WritableStream pipes into a stream and closes it", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "text/plain" })
    const pieces = numbers(50).map((n) => `piece ${n}\n`)
    await new Blob(pieces).stream().pipeTo(handle.writable({ producerId: "pipe" }))
    const res = await stream({ url })
    expect(await res.text()).toBe(pieces.join(""))
    expect(res.streamClosed).toBe(true)
  })

  test("a newer epoch fences the older producer, and autoClaim takes over", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "text/plain" })
    const errors = []
    const zombie = new IdempotentProducer(handle, "writer", { epoch: 1, onError: (error) => errors.push(error) })
    zombie.append("a")
    await zombie.flush()
    const owner = new IdempotentProducer(handle, "writer", { autoClaim: true })
    owner.append("b")
    await owner.flush()
    expect(owner.epoch).toBe(2)
    zombie.append("lost")
    await zombie.flush().catch((error) => errors.push(error))
    expect(errors.length).toBeGreaterThan(0)
    for (const error of errors) expect(error).toBeInstanceOf(StaleEpochError)
    expect(errors[0].currentEpoch).toBe(2)
    expect(await (await stream({ url, live: false })).text()).toBe("ab")
  })

  test("close with a final message is idempotent", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "text/plain" })
    let lost = false
    const loseFirstClose = async (target, init) => {
      const response = await fetch(target, init)
      if (!lost && new Headers(init.headers).has("stream-closed")) {
        lost = true
        throw new TypeError("fetch failed")
      }
      return response
    }
    const producer = new IdempotentProducer(handle, "closer", { fetch: loseFirstClose })
    producer.append("one ")
    await producer.flush()
    const result = await producer.close("last").catch(() => producer.close("last"))
    expect(lost).toBe(true)
    const res = await stream({ url })
    expect(await res.text()).toBe("one last")
    expect(res.streamClosed).toBe(true)
    expect(result.finalOffset).toBe(res.offset)
  })

  test("detach leaves the stream open for the next producer", async () => {
    const url = newUrl()
    const handle = await DurableStream.create({ url, contentType: "application/octet-stream" })
    for (const id of ["first", "second"]) {
      const producer = new IdempotentProducer(handle, id)
      producer.append(everyByte)
      await producer.detach()
    }
    expect(await (await stream({ url, live: false })).body()).toEqual(join(everyByte, everyByte))
    expect((await handle.head()).streamClosed).toBe(false)
  })
})

test("errors carry the server's status", async () => {
  const backoffOptions = { initialDelay: 1, maxDelay: 1, multiplier: 1, maxRetries: 0 }
  await expect(stream({ url: newUrl(), live: false, backoffOptions })).rejects.toMatchObject({ status: 404 })
  const url = newUrl()
  await DurableStream.create({ url, contentType: "text/plain", body: "x" })
  const bad = stream({ url, offset: "no/such,offset", live: false, backoffOptions })
  await expect(bad).rejects.toBeInstanceOf(FetchError)
  await expect(bad).rejects.toMatchObject({ status: 400 })
})
