import { Http1Fault } from '../proxy/http1-fault.ts'
import { chooseAnswerFraming, forwardRequestHead, forwardResponseHead } from '../proxy/http1-forward.ts'
import { decodeRequestHead, decodeResponseHead } from '../proxy/http1-head.ts'
import { RequestReader } from '../proxy/http1-reader.ts'

const request = Buffer.from(
  'GET /orders/42?fields=id,total HTTP/1.1\r\nHost: orders.mesh\r\nUser-Agent: curl/8.5.0\r\nAccept: application/json\r\n' +
    'Accept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nX-Request-Id: 0c9ba2f1-5f5e-4f0e-9c3f-1f6a1c4d2b7e\r\n\r\n',
)
const response = Buffer.from(
  'HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nServer: nginx/1.22.1\r\nContent-Type: application/json\r\n' +
    'Content-Length: 100\r\nConnection: keep-alive\r\nETag: "6561f0a1-64"\r\n\r\n',
)
const add = 'x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n'
const drop = ['x-forwarded-for', 'x-forwarded-proto', 'x-flatmesh-error']

let sink = 0
const reader: RequestReader = new RequestReader({
  onHead(head) {
    sink += forwardRequestHead(head, { add, drop }).length
  },
  onData() {},
  onTrailers() {},
  onEnd() {
    reader.next()
  },
  onError(fault) {
    throw new Error(fault.reason)
  },
})

const cases: Record<string, () => void> = {
  'request: parse head': () => {
    const head = decodeRequestHead(request)
    if (!(head instanceof Http1Fault)) sink += head.headBytes
  },
  'request: parse head + forward': () => {
    const head = decodeRequestHead(request)
    if (!(head instanceof Http1Fault)) sink += forwardRequestHead(head, { add, drop }).length
  },
  'request: reader + parse + forward': () => reader.push(request),
  'response: parse head': () => {
    const head = decodeResponseHead(response)
    if (!(head instanceof Http1Fault)) sink += head.headBytes
  },
  'response: parse head + forward': () => {
    const head = decodeResponseHead(response)
    if (head instanceof Http1Fault) return
    sink += forwardResponseHead(head, 11, chooseAnswerFraming(head, 'GET', 11, true), { add: '' }).length
  },
}

const repeats = 200_000
for (const [title, run] of Object.entries(cases)) {
  let bestUs = Number.POSITIVE_INFINITY
  for (let round = 0; round < 6; round++) {
    const beganMs = performance.now()
    for (let i = 0; i < repeats; i++) run()
    bestUs = Math.min(bestUs, ((performance.now() - beganMs) * 1000) / repeats)
  }
  console.log(`${title.padEnd(36)} ${bestUs.toFixed(2)} us`)
}
if (sink === 0) console.log('nothing was parsed')
