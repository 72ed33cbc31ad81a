import { type Call, type CallHandler, type CallReset, REUSED_BYTES_MAX } from './call.ts'

const SCRIBBLE = 0xa5

/** The call, but what its handler is told lies in a buffer that is written over afterwards, as a link's is: who keeps it is found out. */
export function reusingBytes(call: Call): Call {
  let { handler } = call
  return {
    get handler() {
      return handler
    },
    set handler(given) {
      handler = given
      call.handler = new Scribbler(given)
    },
    sendHead: head => call.sendHead(head),
    write: (chunk, isShared) => call.write(chunk, isShared),
    sendTrailers: trailers => call.sendTrailers(trailers),
    end: () => call.end(),
    reset: reset => call.reset(reset),
    pause: () => call.pause(),
    resume: () => call.resume(),
  }
}

class Scribbler implements CallHandler {
  private readonly handler: CallHandler

  constructor(handler: CallHandler) {
    this.handler = handler
  }

  onHead(head: Buffer): void {
    lend(head, bytes => this.handler.onHead(bytes))
  }

  onData(chunk: Buffer): void {
    lend(chunk, bytes => this.handler.onData(bytes))
  }

  onTrailers(trailers: Buffer): void {
    lend(trailers, bytes => this.handler.onTrailers(bytes))
  }

  onEnd(): void {
    this.handler.onEnd()
  }

  onDrain(): void {
    this.handler.onDrain()
  }

  onReset(reset: CallReset): void {
    this.handler.onReset(reset)
  }
}

/** Lends `bytes` to `tell`: they are written over when it returns. */
export function lend(bytes: Buffer, tell: (bytes: Buffer) => void): void {
  if (bytes.length > REUSED_BYTES_MAX) return tell(bytes)
  const lent = Buffer.from(bytes)
  tell(lent)
  lent.fill(SCRIBBLE)
}
