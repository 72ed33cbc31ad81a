import type { MultiaddrConnection, Transport, Upgrader } from '@libp2p/interface'
import { type TCPComponents, tcp } from '@libp2p/tcp'
import { messageOf } from '../router/errors.ts'

/**
 * libp2p's TCP, with a word about every connection that came in and did not become a member's: garbage, a stranger, or
 * one that let the time for its handshake run out. libp2p itself closes them without telling anyone.
 */
export function reportingTcp(
  onFailed: (address: string, reason: string) => void,
): (components: TCPComponents) => Transport {
  return components => {
    const transport: Transport = tcp()(components)
    const createListener = transport.createListener.bind(transport)
    transport.createListener = options =>
      createListener({ ...options, upgrader: reporting(options.upgrader, onFailed) })
    return transport
  }
}

function reporting(upgrader: Upgrader, onFailed: (address: string, reason: string) => void): Upgrader {
  return {
    upgradeInbound: async (connection: MultiaddrConnection, options) => {
      try {
        await upgrader.upgradeInbound(connection, options)
      } catch (error) {
        // A listener that closes gives its handshakes up: nobody's fault.
        if (!options.signal.aborted) onFailed(connection.remoteAddr.toString(), reasonOf(error))
        throw error
      }
    },
    upgradeOutbound: upgrader.upgradeOutbound.bind(upgrader),
    createInboundAbortSignal: signal => upgrader.createInboundAbortSignal(signal),
    getStreamMuxers: () => upgrader.getStreamMuxers(),
    getConnectionEncrypters: () => upgrader.getConnectionEncrypters(),
  }
}

function reasonOf(error: unknown): string {
  const text = messageOf(error)
  return text === '' ? 'the connection was closed' : text.slice(0, 500)
}
