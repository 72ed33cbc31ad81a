/** Runs a benchmark by name: `npm run bench -- NAME [options]`. Each prints what it measures and how. */
const BENCHES: Readonly<Record<string, string>> = {
  router: 'table of a million routes: memory, lookup, full sync; idle cost of a node',
  'call-link': 'one call link between two processes over TLS: calls per second, CPU, bulk',
  calls: 'calls, bulk, gRPC, new and idle connections through two daemons, beside HAProxy and nginx',
  'access-log': 'what a line for every call costs: two daemons with the access log off and on',
  mixed: 'small calls beside bulk up and down on one link: p99, memory',
  stopped: 'readers that stop: memory of both daemons over time',
  wan: 'one bulk download between two daemons over a line of 90 ms',
  http1: 'parsing and forwarding of HTTP/1.1 heads',
}

const [name = ''] = process.argv.slice(2)
if (!Object.hasOwn(BENCHES, name)) {
  const list = Object.entries(BENCHES).map(([known, what]) => `  ${known.padEnd(12)}${what}`)
  console.error(`expected the name of a benchmark, found ${JSON.stringify(name)}:\n${list.join('\n')}`)
  process.exitCode = 2
} else {
  // The benchmark sees its own options where a program of its own would.
  process.argv.splice(1, 2, new URL(`./${name}.ts`, import.meta.url).pathname)
  await import(`./${name}.ts`)
}
