/** Requests as nobody should send them, and right ones among them: arbitraries of fast-check. */
import fc from 'fast-check'
import type { Conversation } from './raw-http.ts'

const hex = (length: number) =>
  fc.string({ unit: fc.constantFrom(...Array.from('0123456789abcdef')), minLength: length, maxLength: length })
const bytes = (maxLength: number) =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array).toString('latin1'))
/** UTF-8 as it would be on the wire. */
const unicode = fc.string({ unit: 'binary', maxLength: 30 }).map((text) => Buffer.from(text).toString('latin1'))
/** Now and then around the limit of request headers, which ends the connection. */
const long = fc
  .oneof({ weight: 5, arbitrary: fc.integer({ min: 1, max: 300 }) }, fc.integer({ min: 15_000, max: 70_000 }))
  .map((length) => 'a'.repeat(length))

/** What may stand in a target or a header without ending it. */
function printable(text: string): string {
  return text.replaceAll(/[^\u0021-\u007e\u0080-\u00ff]/g, '_')
}

function reference(known: readonly string[]): fc.Arbitrary<string> {
  return fc.oneof(
    { weight: 30, arbitrary: fc.constantFrom(...known) },
    { weight: 10, arbitrary: hex(64).map((text) => `sha256:${text}`) },
    hex(128).map((text) => `sha512:${text}`),
    hex(63).map((text) => `sha256:${text}`),
    hex(64).map((text) => `sha256:${text.toUpperCase()}`),
    hex(64).map((text) => `sha256%3A${text}`),
    hex(64).map((text) => `md5:${text}`),
    fc.constantFrom(
      'v1',
      'latest',
      '..',
      '.',
      '%2e%2e',
      '%00',
      '%',
      '%zz',
      '%ff%fe',
      'sha256:',
      'sha256:%0d%0a',
      '*',
    ),
    unicode,
    bytes(20),
    long,
  )
}

const repository = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom('app', 'library/nginx', 'a/b/c/d') },
  fc.constantFrom(
    '',
    '/',
    '..',
    '../..',
    'a//b',
    'A',
    '%2e%2e/%2e%2e/etc',
    'a%2fb',
    'blobs',
    'manifests/x',
    'a__b--c',
    '_',
  ),
  fc.constantFrom('__proto__', 'constructor', 'a;b', 'a?b', 'a#b', 'app/manifests/v1/blobs'),
  unicode,
  long,
)

const query = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom('', '?ns=reg.test', '?ns=docker.io') },
  { weight: 6, arbitrary: fc.domain().map((domain) => `?ns=${domain}`) },
  fc.array(fc.domain(), { minLength: 2, maxLength: 30 }).map((all) => `?${all.map((ns) => `ns=${ns}`).join('&')}`),
  fc.constantFrom(
    '?ns=',
    '?ns',
    '?',
    '??',
    '?ns=%00',
    '?ns=..%2f..',
    '?ns=a:99999999',
    '?ns=[::1]:5000',
    '?ns[]=a&ns[b]=c',
  ),
  fc.constantFrom('?__proto__=x', '?ns=reg.test&ns=', '?%', '?ns=%zz', '#fragment', '?ns=a b', ';ns=reg.test'),
  unicode.map((text) => `?ns=${text}`),
  long.map((text) => `?ns=${text}`),
)

function target(known: readonly string[]): fc.Arbitrary<string> {
  const content = fc
    .tuple(
      repository,
      fc.constantFrom('blobs', 'manifests', 'tags', 'blobs/uploads', 'BLOBS', ''),
      reference(known),
      query,
    )
    .map(([name, section, text, rest]) => `/v2/${name}/${section}/${text}${rest}`)
  const right = fc
    .tuple(fc.constantFrom('blobs', 'manifests'), reference(known), query)
    .map(([section, text, rest]) => `/v2/app/${section}/${text}${rest}`)
  return fc.oneof(
    { weight: 40, arbitrary: right },
    { weight: 4, arbitrary: content },
    content.map((path) => `http://somewhere.test${path}`),
    content.map((path) => `/${path}`),
    content.map((path) => path.replaceAll('/', '//')),
    content.map((path) => path.replaceAll('/', '%2f')),
    fc.constantFrom(
      '*',
      '/',
      '//',
      '',
      '/v2',
      '/v2/',
      '/v2/../v2/',
      '/v2//',
      '/v2/%',
      '/livez',
      '/readyz',
      '/v2/_catalog',
    ),
    fc.constantFrom(
      '/../../../etc/passwd',
      '/v2/../../etc/passwd',
      'http://',
      'https://x:y@z:1/v2/',
      '//[',
      'http://[::1/v2/',
    ),
    fc.constantFrom('/v2/app/blobs/%u0000', '\\v2\\app', '/v2/app\u0000/blobs/x', '/v2/app /blobs/x'),
    bytes(60).map((text) => `/${text}`),
    unicode.map((text) => `/v2/${text}`),
    long.map((text) => `/${text}`),
  )
}

const goodMethod = fc.oneof(
  { weight: 15, arbitrary: fc.constant('GET') },
  { weight: 5, arbitrary: fc.constant('HEAD') },
  fc.constantFrom('POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND', 'QUERY', 'M-SEARCH'),
)
const method = fc.oneof(
  { weight: 15, arbitrary: goodMethod },
  fc.constantFrom('CONNECT', 'PRI', 'get', 'GE T', '', ' GET', 'GET\t', 'G\u0000T', 'HEADER', '\u0016\u0003\u0001'),
)

const version = fc.oneof(
  { weight: 12, arbitrary: fc.constant('HTTP/1.1') },
  { weight: 2, arbitrary: fc.constant('HTTP/1.0') },
  fc.constantFrom('HTTP/0.9', 'HTTP/2.0', 'HTTP/9.9', 'HTTP/1.', 'http/1.1', '', 'HTTP/1.1 x', 'ICE/1.0', 'RTSP/1.0'),
)

const number = fc.oneof(
  fc.nat(400_000).map(String),
  fc.constantFrom('', '0', '00', '-1', '1e3', '0x10', ' 7 ', '9007199254740991', '99999999999999999999', '१२'),
)
const range = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(number, number).map(([first, last]) => `bytes=${first}-${last}`) },
  fc
    .array(fc.tuple(number, number), { maxLength: 40 })
    .map((all) => `bytes=${all.map((pair) => pair.join('-')).join(',')}`),
  fc.constantFrom('bytes', 'bytes=', 'bytes=-', 'items=0-1', 'bytes = 0-1', '=', 'bytes=0-0, 1-1', 'bytes=--1'),
  bytes(20),
)

const authorization = fc.oneof(
  fc.constantFrom(
    'Basic',
    'Basic ',
    'Basic Og==',
    'Basic ====',
    'Basic \u0000',
    'Bearer x',
    'Basic Og== Og==',
    'Digest username="x"',
  ),
  bytes(40).map((text) => `Basic ${text}`),
  long.map((text) => `Basic ${text}`),
)

/** Well-formed as headers go, whatever they mean. */
const header = fc.oneof(
  { weight: 12, arbitrary: range.map((value) => `Range: ${value.replaceAll(/[^ -~\u0080-\u00ff]/g, '_')}`) },
  authorization.map((value) => `Authorization: ${printable(value)}`),
  fc.constantFrom(
    'X-Spegel-Mirrored: true',
    'X-Spegel-Mirrored: TRUE',
    'X-Spegel-Mirrored:',
    'x-spegel-mirrored: true, true',
  ),
  fc.constantFrom(
    'Expect: 100-continue',
    'Expect: 200-ok',
    'Expect:',
    'Upgrade: websocket',
    'Upgrade: h2c',
    'HTTP2-Settings: x',
  ),
  fc.constantFrom(
    'Connection: close',
    'Connection: keep-alive',
    'Connection: upgrade',
    'Connection: close, keep-alive, x',
    'Keep-Alive: timeout=-1',
  ),
  fc.constantFrom(
    'Accept: */*',
    'Accept: %',
    'If-None-Match: *',
    'If-Range: x',
    'If-Modified-Since: x',
    'Via: 1.1 x',
  ),
  fc.constantFrom(
    'Accept-Encoding: gzip;q=0, *;q=9',
    'TE: trailers',
    'Trailer: Range',
    'Cookie: a=b; a=c',
    'Accept-Version: 9',
  ),
  fc.constantFrom('Content-Type: application/json', 'Content-Type: x', 'Content-Encoding: gzip', 'X: \u00ff\u00fe'),
  fc
    .integer({ min: 100, max: 1_000 })
    .map((count) => Array.from({ length: count }, (_, at) => `X-${at}: y`).join('\r\n')),
)

const badHeader = fc.oneof(
  { weight: 3, arbitrary: header },
  authorization.map((value) => `Authorization: ${value}`),
  fc.constantFrom('Host: other', 'Host:', 'Host: a b', 'Host: [::1', 'Content-Type: \u0000', 'Content-Length: 5, 5'),
  fc.constantFrom('no colon', ': no name', ' folded: value', 'a b: c', 'X:\u0000', 'X: a\rb', 'X\t: y', '\u007f: x'),
  fc.tuple(bytes(10), bytes(40)).map(([name, value]) => `${name}: ${value}`),
  long.map((value) => `X-Long: ${value}`),
  fc
    .integer({ min: 2_000, max: 5_000 })
    .map((count) => Array.from({ length: count }, (_, at) => `X-${at}: y`).join('\r\n')),
)

interface Body {
  /** The headers that tell of it. */
  headers: readonly string[]
  text: string
}

const body: fc.Arbitrary<Body> = fc.oneof(
  { weight: 30, arbitrary: fc.constant({ headers: [], text: '' }) },
  bytes(200).map((text) => ({ headers: [`Content-Length: ${text.length}`], text })),
  bytes(200).map((text) => ({
    headers: ['Transfer-Encoding: chunked'],
    text: `${text.length === 0 ? '' : `${text.length.toString(16)}\r\n${text}\r\n`}0\r\n\r\n`,
  })),
)

/** What comes is not what was announced. */
const badBody: fc.Arbitrary<Body> = fc.oneof(
  { weight: 8, arbitrary: body },
  fc.tuple(bytes(200), number).map(([text, length]) => ({ headers: [`Content-Length: ${length}`], text })),
  fc
    .integer({ min: 100_000, max: 2_000_000 })
    .map((length) => ({ headers: [`Content-Length: ${length}`], text: 'b'.repeat(length) })),
  fc
    .tuple(bytes(50), fc.constantFrom('gzip', 'chunked, chunked', 'identity', 'chunked;x=y', 'xchunked'))
    .map(([text, coding]) => ({ headers: [`Transfer-Encoding: ${coding}`], text })),
  fc
    .tuple(
      fc.constantFrom(
        'ffffffffffffffffff\r\n',
        '-1\r\n',
        '5\r\nab',
        '0;ext="\u0000"\r\n\r\n',
        '\r\n',
        '1\r\nabc\r\n',
      ),
      fc.constantFrom([], ['Content-Length: 3'], ['Transfer-Encoding: gzip']),
    )
    .map(([text, more]) => ({ headers: ['Transfer-Encoding: chunked', ...more], text })),
)

/** Requests that HTTP allows, for things that nobody has, in ways that nobody asks. */
function strange(known: readonly string[]): fc.Arbitrary<string> {
  return fc
    .tuple(goodMethod, target(known), fc.array(header, { maxLength: 3 }), body)
    .map(([verb, path, headers, { headers: more, text }]) =>
      [`${verb} ${printable(path) || '/'} HTTP/1.1`, 'Host: reg.test', ...more, ...headers, '', text].join('\r\n'),
    )
}

function malformed(known: readonly string[]): fc.Arbitrary<string> {
  const lineEnd = fc.oneof(
    { weight: 12, arbitrary: fc.constant('\r\n') },
    fc.constantFrom('\n', '\r', '\r\n\r\n', ''),
  )
  const host = fc.oneof({ weight: 9, arbitrary: fc.constant(['Host: reg.test']) }, fc.constant([]))
  const shaped = fc
    .tuple(method, target(known), version, host, fc.array(badHeader, { maxLength: 4 }), badBody, lineEnd)
    .map(([verb, path, protocol, hosts, headers, content, eol]) =>
      [`${verb} ${path} ${protocol}`, ...hosts, ...content.headers, ...headers, '', content.text].join(eol),
    )
  return fc.oneof({ weight: 12, arbitrary: shaped }, bytes(400))
}

/** `requests` of them on one connection, the last followed by a right one that asks the server to close. */
export function conversations(known: readonly string[], requests: number): fc.Arbitrary<Conversation> {
  // Broken framing ends a connection, and what follows is not looked at: so most connections have none until the last.
  const strangeOnes = fc.array(strange(known), { minLength: requests, maxLength: requests })
  const lastBroken = fc
    .tuple(fc.array(strange(known), { minLength: requests - 1, maxLength: requests - 1 }), malformed(known))
    .map(([texts, last]) => [...texts, last])
  return fc
    .record({
      texts: fc.oneof(strangeOnes, lastBroken),
      ending: fc.constantFrom<Conversation['ending']>('wait', 'wait', 'wait', 'half-close', 'reset'),
      /** Where the bytes are cut into packets, in permille. */
      cuts: fc.array(fc.nat(1_000), { maxLength: 4 }),
    })
    .map(({ texts, ending, cuts }) => {
      const last = ending === 'wait' ? 'GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' : ''
      const whole = Buffer.from(texts.join('') + last, 'latin1')
      const at = cuts.map((permille) => Math.floor((whole.length * permille) / 1_000)).sort((a, b) => a - b)
      const pieces = [0, ...at].map((start, index) => whole.subarray(start, at[index] ?? whole.length))
      return { pieces: pieces.filter(({ length }) => length > 0), ending }
    })
}
