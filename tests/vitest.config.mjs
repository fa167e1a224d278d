import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["conformance/*.test.mjs", "interop/*.test.mjs"],
    // Slow machines are slow, not wrong; the suite's own long-poll tests bring their own limit.
    testTimeout: 20_000,
    fileParallelism: false,
  },
})
