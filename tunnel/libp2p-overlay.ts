import { X509Certificate } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { yamux } from '@libp2p/yamux'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { MeshError, messageOf } from '../router/errors.ts'
import { LINK_POLICY_DEFAULTS } from '../router/link-policy.ts'
import type { Log } from '../router/log.ts'
import type { NodeId } from '../router/model.ts'
import { rootFingerprint, verifyNodeCertificate } from './certificate.ts'
import { GossipStream } from './gossip-stream.ts'
import type { Identity } from './identity.ts'
import { Libp2pDuplex } from './libp2p-duplex.ts'
import { memberNoise } from './member-noise.ts'
import type { Overlay, OverlayHandler, OverlayLink } from './overlay.ts'
import { Redial } from './redial.ts'
import { reportingTcp } from './reporting-tcp.ts'

const GOSSIP_PROTOCOL = '/flatmesh/gossip/1'
/** Links of calls where no socket to the call port comes about. */
const CALLS_PROTOCOL = '/flatmesh/calls/1'
/** Such streams a neighbour may open: the one in use, its successor, and a few that finish long calls. */
const CALL_STREAMS_MAX = 8
const KAD_PROTOCOL = '/flatmesh/kad/1'
const PREFIX = 'flatmesh'
const DIAL_TIMEOUT_MS = 5000
/** Failed rounds before the DHT is asked where the node went. */
const DHT_AFTER_FAILURES = 3
/** Failed rounds before the operator hears of it, once until it works again: a restart is over by then. */
const WARN_AFTER_FAILURES = 5
/** Two nodes that dial each other at once get two connections; one goes after this, when both ends have seen both. */
const DUPLICATE_GRACE_MS = 2000
const ADDRESSES_MAX = 16
const NOT_WANTED = 'this link is not wanted any more'

export interface Libp2pOverlayDeps {
  readonly identity: Identity
  readonly log: Log
  readonly handler: OverlayHandler
  random(): number
}

export interface Libp2pOverlayOptions {
  readonly host: string
  readonly port: number
  /** Multiaddrs of members to begin with, with or without `/p2p/…`. */
  readonly join: readonly string[]
  /** Hosts that others should dial in place of the ones listened on. */
  readonly advertise: readonly string[]
  /** How long a link that this end leaves stays open. Default 2 s. */
  readonly leaveMs?: number
  /** Default 2 s. */
  readonly duplicateGraceMs?: number
}

interface Target {
  readonly key: string
  /** undefined: an address from the configuration whose node is not known yet. */
  node: NodeId | undefined
  addresses: string[]
  pinned: boolean
  readonly redial: Redial
  timer: NodeJS.Timeout | undefined
  isDialling: boolean
}

interface OpenStream {
  readonly gossip: GossipStream
  readonly connection: Connection
  /** Its link is down for the owner; it is closed soon. */
  isLeft: boolean
}

interface Link {
  readonly streams: Set<OpenStream>
  isUp: boolean
  sinceMs: number
}

/**
 * The overlay over libp2p: TCP, noise with proof of membership, yamux; kad-dht under a private name to find where a
 * node has moved to; identity that persists; gossip on one long-lived stream per connection.
 *
 * libp2p itself never decides whom to dial: the gater lets only addresses pass that this class has chosen.
 * reference: libp2p's own redialler gives up after 31 s and its peer store forgets addresses of live peers after an hour.
 */
export class Libp2pOverlay implements Overlay {
  private readonly deps: Libp2pOverlayDeps
  private readonly options: Libp2pOverlayOptions
  private readonly targets = new Map<string, Target>()
  /** Addresses of the dials under way: the only ones libp2p may dial. */
  private readonly chosen = new Map<string, number>()
  private readonly proven = new Set<NodeId>()
  /** undefined: all. */
  private wanted: ReadonlySet<NodeId> | undefined
  private readonly linksByNode = new Map<NodeId, Link>()
  private libp2p: Libp2p | undefined
  private isStopping = false
  private strangers = 0

  constructor(deps: Libp2pOverlayDeps, options: Libp2pOverlayOptions) {
    this.deps = deps
    this.options = options
  }

  async start(): Promise<string[]> {
    const { host, port, join } = this.options
    try {
      this.libp2p = await this.createNode()
      await this.libp2p.handle(GOSSIP_PROTOCOL, (stream, connection) => this.onStream(stream, connection), {
        maxInboundStreams: 1,
        maxOutboundStreams: 1,
      })
      await this.libp2p.handle(CALLS_PROTOCOL, (stream, connection) => this.onCallStream(stream, connection), {
        maxInboundStreams: CALL_STREAMS_MAX,
        maxOutboundStreams: CALL_STREAMS_MAX,
      })
      this.libp2p.addEventListener('connection:open', event => this.onConnection(event.detail))
      await this.libp2p.start()
    } catch (error) {
      throw listenError(error, host, port)
    }
    for (const address of join) this.target(address, undefined).addresses = [address]
    for (const target of this.targets.values()) this.plan(target, 0)
    return this.libp2p.getMultiaddrs().map(address => withoutPeer(address.toString()))
  }

  async stop(): Promise<void> {
    this.isStopping = true
    for (const target of this.targets.values()) clearTimeout(target.timer)
    for (const link of this.linksByNode.values()) for (const { gossip } of [...link.streams]) gossip.close('stopping')
    await this.libp2p?.stop()
  }

  send(node: NodeId, bytes: Uint8Array): void {
    this.preferred(node)?.gossip.send(bytes)
  }

  learn(node: NodeId, addresses: readonly string[], pinned = false): void {
    if (node === this.deps.identity.nodeId) return
    const target = this.target(node, node)
    if (target.pinned && !pinned) return
    const fresh = addresses.slice(0, ADDRESSES_MAX).map(withoutPeer).filter(isMultiaddr)
    if (fresh.length === 0 || fresh.join() === target.addresses.join()) return
    target.addresses = fresh
    target.pinned = pinned
    target.redial.onSuccess()
    this.plan(target, 0)
  }

  forget(node: NodeId): void {
    clearTimeout(this.targets.get(node)?.timer)
    this.targets.delete(node)
  }

  choose(wanted: ReadonlySet<NodeId> | undefined): void {
    this.wanted = wanted
    this.dialWanted()
  }

  leave(node: NodeId): void {
    const link = this.linksByNode.get(node)
    if (link === undefined || !link.isUp) return
    const streams = [...link.streams]
    // Calls that have no other way finish first; their link is given up above when it has been idle.
    if (streams.some(open => open.connection.direction !== 'outbound' || isInUse(open))) return
    link.isUp = false
    for (const open of streams) open.isLeft = true
    this.deps.handler.onLinkDown(node, NOT_WANTED, true)
    this.planClose(streams)
  }

  private planClose(streams: readonly OpenStream[]): void {
    setTimeout(() => {
      for (const open of streams) {
        // The other end did not know, and has begun something.
        if (isInUse(open)) this.planClose([open])
        else open.gossip.close(NOT_WANTED)
      }
    }, this.options.leaveMs ?? LINK_POLICY_DEFAULTS.leaveMs).unref()
  }

  isLinked(node: NodeId): boolean {
    return this.linksByNode.get(node)?.isUp === true
  }

  /** Connections that carry gossip with this node now; two for a while when both ends dialled. */
  connectionsTo(node: NodeId): number {
    return this.linksByNode.get(node)?.streams.size ?? 0
  }

  async openCalls(node: NodeId, timeoutMs: number): Promise<Duplex> {
    const connection = this.isLinked(node) ? this.preferred(node)?.connection : undefined
    if (connection === undefined) throw new MeshError('unreachable', `there is no overlay link to ${node}`)
    const signal = AbortSignal.timeout(timeoutMs)
    const stream = await connection.newStream(CALLS_PROTOCOL, { signal, maxOutboundStreams: CALL_STREAMS_MAX })
    return new Libp2pDuplex(stream)
  }

  links(): OverlayLink[] {
    const links: OverlayLink[] = []
    for (const [node, link] of this.linksByNode) {
      const stream = this.preferred(node)
      if (!link.isUp || stream === undefined) continue
      links.push({
        node,
        rttMs: stream.gossip.heartbeat.rttMs ?? 0,
        lossRatio: stream.gossip.heartbeat.lossRatio,
        address: withoutPeer(stream.connection.remoteAddr.toString()),
        dialled: stream.connection.direction === 'outbound',
        isInUse: [...link.streams].some(isInUse),
        sinceMs: link.sinceMs,
      })
    }
    return links
  }

  private createNode(): Promise<Libp2p> {
    const { identity } = this.deps
    const { host, port, advertise } = this.options
    const certificate = new X509Certificate(identity.certificatePem).raw
    return createLibp2p({
      start: false,
      privateKey: privateKeyFromRaw(rawPrivateKey(identity)),
      nodeInfo: { name: PREFIX, version: '1' },
      addresses: {
        listen: [hostMultiaddr(host, port)],
        // The port is known only after listening; with port 0 the advertised hosts travel in the record alone.
        announce: port === 0 ? [] : advertise.map(name => hostMultiaddr(name, port)),
      },
      transports: [reportingTcp((address, reason) => this.onStranger(reason, address))],
      connectionEncrypters: [
        memberNoise({
          certificate,
          meshFingerprint: rootFingerprint(identity.rootPem),
          verify: der => verifyNodeCertificate(der, identity.rootPem, Date.now()),
          onMember: node => this.proven.add(node),
          onStranger: reason => this.onStranger(reason, 'dialled by this node'),
        }),
      ],
      // Windows well below the 4 MiB at which libp2p resets a stream whose reader is late.
      streamMuxers: [yamux({ streamOptions: { maxStreamWindowSize: 1 << 20 } })],
      connectionGater: {
        denyDialMultiaddr: address => !this.chosen.has(withoutPeer(address.toString())),
        denyInboundEncryptedConnection: peer => !this.proven.has(peer.toString()),
        denyOutboundEncryptedConnection: peer => !this.proven.has(peer.toString()),
      },
      peerStore: { maxAddressAge: Number.POSITIVE_INFINITY, maxPeerAge: Number.POSITIVE_INFINITY },
      // Nodes of one datacenter may share an address (NAT), so limits per address must leave room for a restart of all.
      connectionManager: {
        maxConnections: 2000,
        // A stranger that says nothing holds a place no longer than a member on the longest line needs.
        inboundUpgradeTimeout: DIAL_TIMEOUT_MS,
        inboundConnectionThreshold: 50,
        maxIncomingPendingConnections: 200,
        reconnectRetries: 0,
      },
      connectionMonitor: { enabled: false },
      services: {
        identify: identify({ protocolPrefix: PREFIX }),
        ping: ping({ protocolPrefix: PREFIX }),
        dht: kadDHT({ protocol: KAD_PROTOCOL, clientMode: false, peerInfoMapper: passthroughMapper }),
      },
    })
  }

  // Dialling ------------------------------------------------------------------------------------------------------

  private target(key: string, node: NodeId | undefined): Target {
    const known = this.targets.get(key)
    if (known !== undefined) return known
    const target: Target = {
      key,
      node,
      addresses: [],
      pinned: false,
      redial: new Redial(),
      timer: undefined,
      isDialling: false,
    }
    this.targets.set(key, target)
    return target
  }

  private plan(target: Target, delayMs: number): void {
    clearTimeout(target.timer)
    if (this.isStopping || this.libp2p === undefined || this.targets.get(target.key) !== target) return
    target.timer = setTimeout(() => {
      target.timer = undefined
      target.isDialling = true
      this.dial(target)
        .catch((error: unknown) => {
          this.deps.log.error({ reason: String(error) }, 'a dial failed in an unexpected way')
        })
        .finally(() => {
          target.isDialling = false
        })
    }, delayMs)
  }

  /** Addresses to join through count while this node is alone: a thousand nodes have the same. */
  private isWanted({ key, node }: Target): boolean {
    if (this.wanted === undefined || (node !== undefined && this.wanted.has(node))) return true
    return key !== node && this.linksByNode.size === 0
  }

  /** Dials what is wanted and neither linked nor being dialled. */
  private dialWanted(): void {
    for (const target of this.targets.values()) {
      const isIdle = target.timer === undefined && !target.isDialling
      if (isIdle && this.isWanted(target) && !this.hasStream(target.node)) this.plan(target, 0)
    }
  }

  private hasStream(node: NodeId | undefined): boolean {
    return node !== undefined && (this.linksByNode.get(node)?.streams.size ?? 0) > 0
  }

  private async dial(target: Target): Promise<void> {
    const { libp2p } = this
    if (libp2p === undefined || this.isStopping || this.hasStream(target.node) || !this.isWanted(target)) return
    if (target.redial.failures >= DHT_AFTER_FAILURES && !target.pinned) await this.askDht(libp2p, target)
    const plain = target.addresses.map(withoutPeer)
    for (const address of plain) this.chosen.set(address, (this.chosen.get(address) ?? 0) + 1)
    try {
      const node = target.key === target.node ? target.node : undefined
      const addresses = target.addresses.map(address => dialable(address, node))
      const connection = await libp2p.dial(addresses, { signal: AbortSignal.timeout(DIAL_TIMEOUT_MS) })
      target.redial.onSuccess()
      // Another node may have taken the place of the one that was configured.
      if (target.key !== target.node) target.node = connection.remotePeer.toString()
      // A connection that was there already may have lost its gossip stream: looked at again, not waited for.
      if (!this.hasStream(target.node)) this.plan(target, DIAL_TIMEOUT_MS)
    } catch (error) {
      if (this.isStopping) return
      const delayMs = target.redial.onFailure(this.deps.random())
      const reason = messageOf(error)
      const fields = { link: target.node ?? target.addresses.join(), reason, delayMs }
      if (target.redial.failures === WARN_AFTER_FAILURES)
        this.deps.log.warn(fields, 'a node cannot be reached; trying on')
      else this.deps.log.debug(fields, 'dial failed')
      // A configured address that turns out to be this node itself is a mistake without consequence.
      if (!reason.includes('dial self')) this.plan(target, delayMs)
    } finally {
      for (const address of plain) this.unchoose(address)
    }
  }

  private unchoose(address: string): void {
    const dials = (this.chosen.get(address) ?? 0) - 1
    if (dials > 0) this.chosen.set(address, dials)
    else this.chosen.delete(address)
  }

  /** The node does not answer where it used to be: members near it in the DHT may know better. */
  private async askDht(libp2p: Libp2p, target: Target): Promise<void> {
    if (target.node === undefined || this.links().length === 0) return
    try {
      const signal = AbortSignal.timeout(DIAL_TIMEOUT_MS)
      const { multiaddrs } = await libp2p.peerRouting.findPeer(peerIdFromString(target.node), { signal })
      const found = multiaddrs.map(address => withoutPeer(address.toString()))
      // What others say of it is tried after what it says itself, and never in its place.
      target.addresses = [...new Set([...target.addresses, ...found])].slice(0, ADDRESSES_MAX)
    } catch (error) {
      this.deps.log.debug({ link: target.node, reason: String(error) }, 'the DHT does not know this node')
    }
  }

  // Links ---------------------------------------------------------------------------------------------------------

  /** The first, the second, the fourth, the eighth …: one line says enough of many, and is not lost among them. */
  private onStranger(reason: string, remote: string): void {
    this.strangers++
    if ((this.strangers & (this.strangers - 1)) === 0) {
      this.deps.log.warn({ reason, remote, code: 'not-a-member', count: this.strangers }, 'turned a stranger away')
    }
  }

  private onConnection(connection: Connection): void {
    if (connection.direction !== 'outbound' || this.isStopping) return
    connection
      .newStream(GOSSIP_PROTOCOL, { signal: AbortSignal.timeout(DIAL_TIMEOUT_MS) })
      .then(stream => this.onStream(stream, connection))
      .catch((error: unknown) => {
        const reason = messageOf(error)
        connection.abort(new Error(`no gossip stream: ${reason}`))
        this.onLost(connection.remotePeer.toString())
      })
  }

  private onCallStream(stream: Stream, connection: Connection): void {
    const { onCallStream } = this.deps.handler
    if (onCallStream === undefined || this.isStopping) stream.abort(new Error('this node takes no calls here'))
    else onCallStream(connection.remotePeer.toString(), new Libp2pDuplex(stream))
  }

  private onStream(stream: Stream, connection: Connection): void {
    const node = connection.remotePeer.toString()
    const link = this.linksByNode.get(node) ?? {
      streams: new Set(),
      isUp: false,
      sinceMs: 0,
    }
    this.linksByNode.set(node, link)
    const gossip: GossipStream = new GossipStream(
      stream,
      {
        onRtt: () => {
          if (!open.isLeft) this.onRtt(node, link, gossip)
        },
        onFrame: bytes => {
          if (link.isUp || open.isLeft) this.deps.handler.onFrame(node, bytes)
        },
        onClose: reason => this.onClose(node, link, open, reason),
      },
      () => performance.now(),
    )
    const open: OpenStream = { gossip, connection, isLeft: false }
    link.streams.add(open)
    gossip.start()
    if (link.streams.size > 1) this.planDuplicates(node)
  }

  private onRtt(node: NodeId, link: Link, gossip: GossipStream): void {
    const { rttMs = 0, lossRatio } = gossip.heartbeat
    if (!link.isUp) {
      link.isUp = true
      link.sinceMs = Date.now()
      this.deps.handler.onLinkUp(node, rttMs)
    } else if (this.preferred(node)?.gossip === gossip) this.deps.handler.onRtt(node, rttMs, lossRatio)
  }

  private onClose(node: NodeId, link: Link, open: OpenStream, reason: string): void {
    if (!link.streams.delete(open)) return
    open.connection.abort(new Error(reason))
    if (link.streams.size > 0) return
    this.linksByNode.delete(node)
    if (link.isUp) this.deps.handler.onLinkDown(node, reason, false)
    this.onLost(node)
  }

  private onLost(node: NodeId): void {
    if (this.isStopping || this.hasStream(node)) return
    for (const target of this.targets.values()) {
      // The first retry comes soon, but not from all sides in the same millisecond.
      if (target.node === node) this.plan(target, target.redial.onFailure(this.deps.random()))
    }
    if (this.linksByNode.size === 0) this.dialWanted()
  }

  /** Both ends keep the connection that was dialled by the smaller node id; of several such, the newest. One that is left, only if there is no other. */
  private preferred(node: NodeId): OpenStream | undefined {
    const all = [...(this.linksByNode.get(node)?.streams ?? [])]
    const staying = all.filter(({ isLeft }) => !isLeft)
    const streams = staying.length > 0 ? staying : all
    const direction = this.deps.identity.nodeId < node ? 'outbound' : 'inbound'
    return streams.findLast(({ connection }) => connection.direction === direction) ?? streams.at(-1)
  }

  private planDuplicates(node: NodeId): void {
    const graceMs = this.options.duplicateGraceMs ?? DUPLICATE_GRACE_MS
    setTimeout(() => this.closeDuplicates(node), graceMs).unref()
  }

  private closeDuplicates(node: NodeId): void {
    const keep = this.preferred(node)
    for (const open of [...(this.linksByNode.get(node)?.streams ?? [])]) {
      if (open === keep || open.isLeft) continue
      // Calls finish first; the link they are on moves when something better comes up.
      if (isInUse(open)) this.planDuplicates(node)
      else open.gossip.close('a second connection to the same node')
    }
  }
}

/** It carries a stream of calls. */
function isInUse({ connection }: OpenStream): boolean {
  return connection.streams.some(({ protocol }) => protocol === CALLS_PROTOCOL)
}

function rawPrivateKey(identity: Identity): Uint8Array {
  const { d = '', x = '' } = identity.key.export({ format: 'jwk' })
  return Buffer.concat([Buffer.from(d, 'base64url'), Buffer.from(x, 'base64url')])
}

function dialable(address: string, node: NodeId | undefined): Multiaddr {
  return multiaddr(node === undefined ? address : `${withoutPeer(address)}/p2p/${node}`)
}

/** The multiaddr of a TCP port of a host name or address. */
function hostMultiaddr(host: string, port: number): string {
  if (/^[0-9.]+$/.test(host)) return `/ip4/${host}/tcp/${port}`
  return host.includes(':') ? `/ip6/${host}/tcp/${port}` : `/dns/${host}/tcp/${port}`
}

function withoutPeer(address: string): string {
  return address.replace(/\/p2p\/[^/]+$/, '')
}

function isMultiaddr(address: string): boolean {
  try {
    return multiaddr(address).toString().length > 0
  } catch {
    return false
  }
}

function listenError(error: unknown, host: string, port: number): Error {
  const text = `${String(error)} ${error instanceof Error ? String(error.cause ?? '') : ''}`
  if (!/EADDRINUSE|EACCES|EADDRNOTAVAIL|listen/i.test(text)) return error instanceof Error ? error : new Error(text)
  // libp2p's own text is a list over several lines; what the system said of the port is at its end.
  const reason = /\b(?:listen )?E[A-Z]{3,}[^\n]*/.exec(text)?.[0] ?? text.replace(/\s+/g, ' ')
  return new MeshError(
    'port-in-use',
    `listen.overlay: cannot listen on ${host}:${port} (${reason.trim()}); stop what holds it or choose another port`,
    { cause: error },
  )
}
