// Writes events.json: event blocks as the IPLD libraries for JavaScript write and name them.
//
// Nothing here knows the Rust crate. See README.md for how to run it.

import { writeFileSync } from 'node:fs'
import * as dagCbor from '@ipld/dag-cbor'
import * as dagJson from '@ipld/dag-json'
import { blake3 } from '@noble/hashes/blake3.js'
import { CID } from 'multiformats/cid'
import { from } from 'multiformats/hashes/hasher'
import { sha256 } from 'multiformats/hashes/sha2'

const hashes = {
  sha2: sha256,
  blake3: from({ name: 'blake3', code: 0x1e, encode: (bytes) => blake3(bytes) })
}
const codecs = { dagCbor, dagJson }

const link = CID.parse('bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua')

const event = (fields) => ({
  format: 1,
  context: 'sales',
  aggregate: 'order',
  id: '42',
  version: 1,
  type: 'placed',
  schema: 1,
  event_id: '0192e4a0-7c1a-7b3e-8f00-0123456789ab',
  occurred_at: 1732180000000000,
  correlation_id: '0192e4a0-7c1a-7b3e-8f00-0123456789ab',
  causation_id: null,
  metadata: {},
  previous: null,
  data: {},
  ...fields
})

const later = {
  version: 2,
  previous: link,
  causation_id: '0192e4a0-7c19-7000-8000-ffffffffffff'
}

const events = {
  'first event, everything empty': event({}),
  'later event with a cause, a link and metadata': event({
    ...later,
    metadata: { user: 'kim', tenant: 'acme', 'a longer name': '', b: 'é', aa: '1', Z: '2' },
    data: { Placed: { lines: 2 } }
  }),
  'integers at every width': event({
    version: 18446744073709551615n,
    schema: 4294967295,
    occurred_at: 18446744073709551615n,
    data: [
      0, 1, 23, 24, 255, 256, 65535, 65536, 4294967295, 4294967296n, 9007199254740993n, 18446744073709551615n,
      -1, -24, -25, -256, -257, -65536, -65537, -4294967296, -4294967297n, -9223372036854775808n
    ]
  }),
  'floats, short and long, small and large': event({
    data: [
      0.5, -0.5, 0.1, 1.1, -3.141592653589793, 1234.5678, 0.000001234, 0.000001, 0.0000001, 1.25e-7, -2.5e-10,
      5e-324, 2.2250738585072014e-308, 1e300, 1.7976931348623157e308, 1e21, 1.5e21, 1e25, 100000.5,
      10000000000000002.5, 0.30000000000000004, 123456789.12345679, 2.5e-5, 9007199254740991.5 / 4
    ]
  }),
  'text of many scripts, quotes and controls': event({
    id: 'a=2Eb=20c',
    metadata: { 'ключ': 'значение', '鍵': '値', 'clé': 'é\u0301', quote: '"\\/\b\f\n\r\t\u0000\u001f\u007f' },
    data: { text: 'Ünïcødé 日本語 العربية 👩‍🚀 \u2028\u2029 \ufeff \uffff', empty: '', 'schlüssel': ['"', '\\', '/'] }
  }),
  'nested maps and lists, empty ones among them': event({
    ...later,
    data: {
      map: {}, list: [], lists: [[], [[]], [{}]], nothing: null, yes: true, no: false,
      deep: { a: { b: { c: { d: [{ e: [1, { f: null }] }] } } } }
    }
  }),
  'keys that sort by length in one codec and by bytes in the other': event({
    data: { b: 1, a: 2, aa: 3, B: 4, ab: 5, '': 6, zzz: 7, é: 8, '10': 9, '9': 10, 'a b': 11, ['k'.repeat(30)]: 12 }
  }),
  'bytes and links': event({
    ...later,
    data: { none: new Uint8Array(0), some: Uint8Array.from({ length: 300 }, (_, i) => i % 256), link, links: [link, { link }] }
  }),
  'text and lists at every width': event({
    data: { t23: 't'.repeat(23), t24: 't'.repeat(24), t256: 't'.repeat(256), l24: Array(24).fill(0), l256: Array(256).fill(true) }
  })
}

const hex = (bytes) => Buffer.from(bytes).toString('hex')
const vectors = []
for (const [name, value] of Object.entries(events)) {
  const vector = { name }
  for (const [codecName, codec] of Object.entries(codecs)) {
    const bytes = codec.encode(value)
    // Where the decoded value is written again and differs, the library itself is not sure what the block is.
    if (hex(codec.encode(codec.decode(bytes))) !== hex(bytes)) throw new Error(`${name}: ${codecName} is not stable`)
    const cids = {}
    for (const [hashName, hash] of Object.entries(hashes)) {
      cids[hashName] = CID.createV1(codec.code, await hash.digest(bytes)).toString()
    }
    vector[codecName] = { bytes: codecName === 'dagJson' ? new TextDecoder().decode(bytes) : hex(bytes), cids }
  }
  vectors.push(vector)
}
writeFileSync(new URL('events.json', import.meta.url), JSON.stringify(vectors, null, 1) + '\n')
