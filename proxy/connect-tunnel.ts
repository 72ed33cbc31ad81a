import { KEEP_ALIVE_MS } from './address.ts'
import type { ExchangeDeps } from './exchange.ts'
import { fieldValue } from './http1-fields.ts'
import { decodeResponseHead } from './http1-head.ts'
import { FORWARDED_HTTP1_LIMITS } from './http1-limits.ts'
import { meshAnswer } from './mesh-answer.ts'
import { viaLine } from './mesh-fields.ts'
import { TcpTunnel, type TunnelClient, type TunnelRequest } from './tcp-tunnel.ts'

/** How long a client may still send after it was told that there is no tunnel, before it is cut off. */
const LINGER_MS = 2000

/**
 * The tunnel a client has asked its ingress for with CONNECT: 200 once an instance has the connection, and from then on bytes as
 * they are; else an error of the mesh like any other, and the end of the connection.
 */
export function openConnectTunnel(
  deps: ExchangeDeps,
  request: TunnelRequest,
  onGone: (tunnel: TcpTunnel) => void,
): TcpTunnel {
  const { socket, service } = request
  let linger: NodeJS.Timeout | undefined
  const client: TunnelClient = {
    onConnected: bytes => {
      const head = decodeResponseHead(bytes, FORWARDED_HTTP1_LIMITS)
      if ('code' in head) return tunnel.fail('bad-answer', `the answer's head cannot be read: ${head.reason}`)
      const via = fieldValue(head.fields, 'via')
      const theirs = via === undefined ? '' : `Via: ${via}\r\n`
      const answer = `HTTP/1.1 200 Connection Established\r\n${theirs}${viaLine(deps.self.name)}\r\n`
      tunnel.write(Buffer.from(answer, 'latin1'))
    },
    onFailed: (code, reason) => {
      const failure = { code, reason, node: deps.self.name, service, attempts: tunnel.attempts }
      tunnel.finish(meshAnswer(failure, 'CONNECT', false))
      linger = setTimeout(() => tunnel.destroy(), LINGER_MS)
    },
    onCut() {},
    onGone: () => {
      clearTimeout(linger)
      onGone(tunnel)
    },
  }
  socket.setKeepAlive(true, KEEP_ALIVE_MS)
  const tunnel = new TcpTunnel(deps, request, client)
  return tunnel
}
