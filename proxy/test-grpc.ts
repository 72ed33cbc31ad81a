import grpc from '@grpc/grpc-js'

/** A gRPC service of plain bytes, in all four shapes, so that no schema is needed. */
const bytes = (value: Buffer): Buffer => value
function method(name: string, requestStream: boolean, responseStream: boolean): grpc.MethodDefinition<Buffer, Buffer> {
  return {
    ...{ path: `/test.Echo/${name}`, requestStream, responseStream },
    ...{ requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes },
  }
}
export const ECHO = {
  Unary: method('Unary', false, false),
  Upload: method('Upload', true, false),
  Download: method('Download', false, true),
  Chat: method('Chat', true, true),
} as const

export type EchoHandlers = {
  Unary?: grpc.handleUnaryCall<Buffer, Buffer>
  Upload?: grpc.handleClientStreamingCall<Buffer, Buffer>
  Download?: grpc.handleServerStreamingCall<Buffer, Buffer>
  Chat?: grpc.handleBidiStreamingCall<Buffer, Buffer>
}

const EMPTY: Buffer = Buffer.alloc(0)
/** Messages may be as large as 16 MiB at both ends. */
const OPTIONS = {
  'grpc.max_receive_message_length': 16 * 1024 * 1024,
  'grpc.max_send_message_length': 16 * 1024 * 1024,
}

/** A real gRPC server on loopback. Answers its address. */
export async function startEcho(handlers: EchoHandlers): Promise<{ server: grpc.Server; address: string }> {
  const server = new grpc.Server(OPTIONS)
  const unset = (call: { emit(event: 'error', error: Error): unknown }): void =>
    void call.emit('error', new Error('no handler'))
  server.addService(ECHO, { Unary: unset, Upload: unset, Download: unset, Chat: unset, ...handlers })
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    ),
  )
  return { server, address: `127.0.0.1:${port}` }
}

/** A real gRPC client of service `authority` through the ingress at `address`. */
export class EchoClient {
  private readonly client: grpc.Client

  constructor(address: string, authority: string) {
    this.client = new grpc.Client(address, grpc.credentials.createInsecure(), {
      ...OPTIONS,
      'grpc.default_authority': authority,
      'grpc.enable_retries': 0,
      // Each client its own connection: tests must not meet another's.
      'grpc.use_local_subchannel_pool': 1,
    })
  }

  close(): void {
    this.client.close()
  }

  /** Resolves with the answer and all that came with it; rejects with the ServiceError. */
  unary(
    message: Buffer,
    options: grpc.CallOptions = {},
    metadata = new grpc.Metadata(),
  ): Promise<{ answer: Buffer; metadata: grpc.Metadata; trailers: grpc.Metadata }> {
    return new Promise((resolve, reject) => {
      const seen = { metadata: new grpc.Metadata(), trailers: new grpc.Metadata(), answer: EMPTY }
      const call = this.client.makeUnaryRequest(
        ...([ECHO.Unary.path, bytes, bytes, message, metadata, options] as const),
        (error, answer) => {
          if (error !== null) reject(error)
          else seen.answer = answer ?? seen.answer
        },
      )
      call.on('metadata', found => {
        seen.metadata = found
      })
      call.on('status', status => {
        seen.trailers = status.metadata
        if (status.code === grpc.status.OK) setImmediate(resolve, seen)
      })
    })
  }

  upload(
    done: (error: grpc.ServiceError | null, answer: Buffer | undefined) => void,
  ): grpc.ClientWritableStream<Buffer> {
    return this.client.makeClientStreamRequest(ECHO.Upload.path, bytes, bytes, new grpc.Metadata(), {}, done)
  }

  download(message: Buffer, options: grpc.CallOptions = {}): grpc.ClientReadableStream<Buffer> {
    return this.client.makeServerStreamRequest(ECHO.Download.path, bytes, bytes, message, new grpc.Metadata(), options)
  }

  chat(options: grpc.CallOptions = {}): grpc.ClientDuplexStream<Buffer, Buffer> {
    return this.client.makeBidiStreamRequest(ECHO.Chat.path, bytes, bytes, new grpc.Metadata(), options)
  }
}
