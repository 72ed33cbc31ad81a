import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { HpackDecoder } from './hpack-decoder.ts'
import { HpackEncoder } from './hpack-encoder.ts'
import { decodeHuffman, HUFFMAN_BITS, HUFFMAN_CODES } from './hpack-huffman.ts'
import { STATIC_COUNT, STATIC_FIELDS } from './hpack-table.ts'

const bytesOf = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex')

function decode(decoder: HpackDecoder, block: Buffer): string[] | string {
  const fields = decoder.decode(block, 0, block.length)
  return typeof fields === 'string' ? fields : fields.map(({ name, value }) => `${name}: ${value}`)
}

function decoderOf(tableBytesMax = 4096, listBytesMax = 65_536): HpackDecoder {
  return new HpackDecoder({ tableBytesMax, listBytesMax })
}

/** The code by the book, one bit at a time: what the decoder's steps are checked against. */
function huffman(text: string): Buffer {
  let bits = ''
  for (const byte of Buffer.from(text, 'latin1')) {
    bits += (HUFFMAN_CODES[byte] ?? 0).toString(2).padStart(HUFFMAN_BITS[byte] ?? 0, '0')
  }
  const bytes = bits.padEnd(Math.ceil(bits.length / 8) * 8, '1').match(/.{8}/g) ?? []
  return Buffer.from(bytes.map(byte => Number.parseInt(byte, 2)))
}

describe('the examples of RFC 7541, appendix C', () => {
  const www = [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com']
  const second = [...www, 'cache-control: no-cache']
  const third = [
    ':method: GET',
    ':scheme: https',
    ':path: /index.html',
    ':authority: www.example.com',
    'custom-key: custom-value',
  ]
  const moved = (date: number, status: number): string[] => [
    ...[`:status: ${status}`, 'cache-control: private', `date: Mon, 21 Oct 2013 20:13:${date} GMT`],
    'location: https://www.example.com',
  ]
  const cookie = 'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'
  const last = [...moved(22, 200), 'content-encoding: gzip', cookie]

  test.each<[string, number, readonly (readonly [hex: string, fields: string[], tableBytes: number])[]]>([
    [
      'C.2.1',
      4096,
      [['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572', ['custom-key: custom-header'], 55]],
    ],
    ['C.2.2', 4096, [['040c 2f73 616d 706c 652f 7061 7468', [':path: /sample/path'], 0]]],
    ['C.2.3', 4096, [['1008 7061 7373 776f 7264 0673 6563 7265 74', ['password: secret'], 0]]],
    ['C.2.4', 4096, [['82', [':method: GET'], 0]]],
    [
      'C.3, requests as they are',
      4096,
      [
        ['8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d', www, 57],
        ['8286 84be 5808 6e6f 2d63 6163 6865', second, 110],
        ['8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65', third, 164],
      ],
    ],
    [
      'C.4, requests in Huffman code',
      4096,
      [
        ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', www, 57],
        ['8286 84be 5886 a8eb 1064 9cbf', second, 110],
        ['8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf', third, 164],
      ],
    ],
    [
      'C.5, answers with a table of 256 bytes',
      256,
      [
        [
          '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 ' +
            '474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
          moved(21, 302),
          222,
        ],
        ['4803 3330 37c1 c0bf', moved(21, 307), 222],
        [
          '88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 ' +
            '666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 ' +
            '3630 303b 2076 6572 7369 6f6e 3d31',
          last,
          215,
        ],
      ],
    ],
    [
      'C.6, the same in Huffman code',
      256,
      [
        [
          '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 ' +
            '63c7 8f0b 97c8 e9ae 82ae 43d3',
          moved(21, 302),
          222,
        ],
        ['4883 640e ffc1 c0bf', moved(21, 307), 222],
        [
          '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 ' +
            'b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
          last,
          215,
        ],
      ],
    ],
  ])('%s are read as they are there', (_, tableBytesMax, blocks) => {
    const decoder = decoderOf(tableBytesMax)
    for (const [hex, fields, tableBytes] of blocks) {
      expect(decode(decoder, bytesOf(hex))).toEqual(fields)
      expect(decoder.tableBytes).toBe(tableBytes)
    }
  })
})

describe('the Huffman code', () => {
  test('reads every byte, alone and beside every other', () => {
    for (let a = 0; a < 256; a++) {
      for (let b = 0; b < 256; b++) {
        const text = String.fromCharCode(a, b)
        const coded = huffman(text)
        expect(decodeHuffman(coded, 0, coded.length)).toBe(text)
      }
    }
  })

  test.each([
    ['the end of string', 'ffffffff'],
    ['padding of a whole byte', '1fff'],
    ['padding with zeros', '18'],
    ['padding that is a code of its own', '00'],
  ])('refuses %s', (_, hex) => {
    const bytes = Buffer.from(hex, 'hex')
    // `00` is two and a half times the code of "0": three bits of zeros are no padding.
    expect(decodeHuffman(bytes, 0, bytes.length)).toBeUndefined()
  })
})

describe('blocks that are refused', () => {
  test.each<[string, string]>([
    ['index 0', '80'],
    ['an index beyond both tables', 'be'],
    ['an index that breaks off', 'ff'],
    ['an index that never ends', 'ffffffffffffffff'],
    ['a name of an index that is not there', '7f00 0161'],
    ['a text that breaks off', '0003 6161'],
    ['a length that is too large', '007f ffffffff'],
    ['a value that is missing', '0001 61'],
    ['a text of a wrong code', '0081 18 0161'],
    ['a table larger than was offered', '3fe2 1f'],
    ['a table that changes after a field', '8220'],
    ['a table that changes three times', '2020 20'],
  ])('%s', (_, hex) => {
    expect(typeof decode(decoderOf(), bytesOf(hex))).toBe('string')
  })

  test('a list that grows out of a small block is cut off at the limit and costs nothing more (HPACK bomb)', () => {
    const decoder = decoderOf(4096, 65_536)
    const value = Buffer.alloc(4000, 'x')
    const field = Buffer.concat([bytesOf('4001 61 7fa1 1e'), value])
    const block = Buffer.concat([field, Buffer.alloc(60_000, 0xbe)])
    const fields = decoder.decode(block, 0, block.length)
    expect(decoder.isTooLarge).toBe(true)
    expect(typeof fields === 'string' ? fields : fields.length).toBe(16)
    // The table is still right, so the connection can go on.
    expect(decode(decoder, bytesOf('be'))).toEqual([`a: ${value}`])
  })

  test('a table never holds more than it was offered, whatever is put into it', () => {
    const decoder = decoderOf(256)
    for (let i = 0; i < 100; i++) {
      const name = Buffer.from(`name-${i}`.padEnd(10))
      decode(decoder, Buffer.concat([bytesOf('400a'), name, bytesOf('0a'), name]))
      expect(decoder.tableBytes).toBeLessThanOrEqual(256)
    }
    decode(decoder, Buffer.concat([bytesOf('4001 61 7fad 01'), Buffer.alloc(300, 'x')]))
    expect(decoder.tableBytes).toBe(0)
  })
})

describe('the encoder', () => {
  const names = ['content-type', ':status', 'x-own', 'authorization', 'date', 'grpc-status', 'set-cookie', 'etag']
  const fields = fc.array(
    fc.tuple(
      fc.constantFrom(...names),
      fc.oneof(
        fc.constantFrom('', 'a', 'application/grpc', '200'),
        fc.string({ unit: 'binary-ascii', maxLength: 300 }),
      ),
    ),
    { maxLength: 12 },
  )

  test('is read back by the decoder, whatever repeats and however the table changes its size', () => {
    const step = fc.record({ fields, resize: fc.option(fc.integer({ min: 0, max: 4096 }), { freq: 5 }) })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), steps => {
        const encoder = new HpackEncoder(4096)
        const decoder = decoderOf()
        for (const { fields, resize } of steps) {
          if (resize !== null) encoder.resize(resize)
          const block = encoder.encode(fields.flat())
          expect(decode(decoder, block)).toEqual(fields.map(([name, value]) => `${name}: ${value}`))
          expect(encoder.tableBytes).toBe(decoder.tableBytes)
        }
      }),
      { numRuns: 300 },
    )
  })

  test('sends what repeats in a byte from the third time on', () => {
    const encoder = new HpackEncoder(4096)
    const message = [':status', '200', 'content-type', 'application/grpc', 'via', '1.1 flatmesh-euw3-a']
    const lengths = [0, 1, 2].map(() => encoder.encode(message).length)
    expect(lengths[2]).toBe(3)
    expect(lengths[0]).toBeGreaterThan(40)
  })

  test('what differs every time never enters the table, so it drives nothing out', () => {
    const encoder = new HpackEncoder(4096)
    for (let i = 0; i < 1000; i++) encoder.encode(['x-request-id', String(i)])
    expect(encoder.tableBytes).toBe(0)
  })

  test('secrets are marked as never to be indexed, and are not kept', () => {
    const encoder = new HpackEncoder(4096)
    for (let i = 0; i < 3; i++) expect((encoder.encode(['authorization', 'Bearer x'])[0] ?? 0) & 0xf0).toBe(0x10)
    expect(encoder.tableBytes).toBe(0)
  })

  test('remembers a bounded number of names', () => {
    const encoder = new HpackEncoder(4096)
    const decoder = decoderOf()
    for (let i = 0; i < 2000; i++) {
      const message = [`x-${i}`, 'v', 'content-type', 'application/grpc']
      expect(decode(decoder, encoder.encode(message))).toEqual([`x-${i}: v`, 'content-type: application/grpc'])
    }
    expect(encoder.encode(['content-type', 'application/grpc']).length).toBe(1)
  })

  test('uses every entry of the static table', () => {
    for (let index = 1; index <= STATIC_COUNT; index++) {
      const { name, value } = STATIC_FIELDS[index] ?? { name: '', value: '' }
      expect(new HpackEncoder(4096).encode([name, value])).toEqual(Buffer.from([0x80 | index]))
    }
  })
})
