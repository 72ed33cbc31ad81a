import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

/** What became of one connection of somebody who does not belong here. */
export interface Fate {
  readonly closed: boolean
  readonly tookMs: number
  /** The first bytes that came back. */
  readonly said: Buffer
}

export type Stranger = (address: string, limitMs: number) => Promise<Fate>

const SAID_BYTES_MAX = 64 * 1024

/** Sends `bytes` at once and waits for the other end to hang up. */
export function sayRaw(bytes: Buffer): Stranger {
  return (address, limitMs) => watch(dial(address), limitMs, socket => socket.write(bytes))
}

/** Sends without end, as fast as it can be read. */
export function flood(chunk: Buffer): Stranger {
  return (address, limitMs) =>
    watch(dial(address), limitMs, socket => {
      const more = (): void => {
        while (!socket.destroyed && socket.writable && socket.write(chunk));
      }
      socket.on('drain', more)
      more()
    })
}

/** Connects, and then says one byte of `bytes` each `everyMs`: holds what it can for as long as it can. */
export function dribble(bytes: Buffer, everyMs: number): Stranger {
  return (address, limitMs) =>
    watch(dial(address), limitMs, socket => {
      let at = 0
      const timer = setInterval(() => {
        if (socket.writable) socket.write(bytes.subarray(at % bytes.length, (at++ % bytes.length) + 1))
      }, everyMs)
      socket.once('close', () => clearInterval(timer))
    })
}

/** Says part of something and then half-closes. */
export function truncate(bytes: Buffer): Stranger {
  return (address, limitMs) => watch(dial(address), limitMs, socket => socket.end(bytes))
}

/** Shakes hands as TLS, without a certificate, and says `bytes`. */
export function sayTls(alpn: string, bytes: Buffer): Stranger {
  return (address, limitMs) => {
    const { host, port } = split(address)
    const socket = connectTls({ host, port, ALPNProtocols: [alpn], rejectUnauthorized: false })
    return watch(socket, limitMs, () => socket.write(bytes))
  }
}

function watch(socket: Socket, limitMs: number, onConnect: (socket: Socket) => void): Promise<Fate> {
  return new Promise(resolve => {
    const startedAtMs = performance.now()
    let said = Buffer.alloc(0)
    const done = (closed: boolean): void => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ closed, tookMs: performance.now() - startedAtMs, said })
    }
    const timer = setTimeout(() => done(false), limitMs)
    socket.on('error', () => {})
    socket.once('close', () => done(true))
    socket.on('data', (chunk: Buffer) => {
      if (said.length < SAID_BYTES_MAX) said = Buffer.concat([said, chunk])
    })
    // The end of what it says is the end of the conversation: nothing more can be got from it.
    socket.once('end', () => done(true))
    socket.once('connect', () => onConnect(socket))
  })
}

function dial(address: string): Socket {
  return connect({ ...split(address), allowHalfOpen: true })
}

function split(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':')
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) }
}
