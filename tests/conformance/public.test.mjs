// The public conformance suite against a running server; started by test_conformance.py.
//
//   DS_TEST_ORIGIN=http://127.0.0.1:4437 npx vitest run conformance     (in tests/; -t PATTERN for a part)

import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: process.env.DS_TEST_ORIGIN ?? "http://127.0.0.1:4437",
  subscriptions: process.env.DS_TEST_SUBSCRIPTIONS === "1",
  // The suite's limit for each long-poll test, not the server's timeout, which must be well below it.
  longPollTimeoutMs: 10_000,
})
