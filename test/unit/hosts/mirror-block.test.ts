import fc from 'fast-check'
import { parse } from 'smol-toml'
import { describe, expect, it } from 'vitest'
import { generateFile, insertBlock, readMarked, renderMirrorTables } from '../../../src/hosts/mirror-block.ts'

const mirror = {
  targets: ['http://127.0.0.1:5000', 'http://10.0.0.1:30020'],
  resolveTags: true,
  authorization: undefined,
}
const tables = renderMirrorTables(mirror, undefined)

describe('renderMirrorTables', () => {
  it('names the mirrors in order', () => {
    expect(tables).toBe(`[host.'http://127.0.0.1:5000']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'

[host.'http://10.0.0.1:30020']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'
`)
  })

  it('leaves out resolving of tags and adds the password where requested', () => {
    const init = { targets: ['http://127.0.0.1:5000'], resolveTags: false, authorization: 'Basic dTpw' }
    expect(parse(renderMirrorTables(init, 'ca.crt'))).toEqual({
      host: {
        'http://127.0.0.1:5000': {
          capabilities: ['pull'],
          dial_timeout: '200ms',
          ca: 'ca.crt',
          header: { Authorization: 'Basic dTpw' },
        },
      },
    })
  })
})

describe('readMarked', () => {
  it('gives back the text that the block was inserted into, wherever it was inserted', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', '\n', '\r\n', '# ', '[', '"') }), fc.nat(40), (text, at) => {
        const lineStart = at >= text.length ? text.length : text.lastIndexOf('\n', at - 1) + 1
        const marked = readMarked(insertBlock(text, lineStart, tables))
        expect(marked).toEqual({ rest: text, users: text, isNewDirectory: false })
      }),
    )
  })

  it('tells a copy of ours from what the user adds to it', () => {
    const copy = generateFile({ tables, copy: "[host.'https://cache']\n" }, { isNewDirectory: true })
    expect(readMarked(copy)).toMatchObject({ users: undefined, isNewDirectory: true })
    expect(readMarked(`${copy}# mine\n`)?.users).toBe("[host.'https://cache']\n# mine\n")
    const plain = generateFile({ top: { server: 'http://x' }, tables, copy: '' }, { isNewDirectory: false })
    expect(readMarked(plain)).toMatchObject({ users: undefined, isNewDirectory: false })
    expect(Object.keys(parse(plain))).toEqual(['server', 'host'])
  })

  it('finds no block in a file of the user, or where a line of it is gone', () => {
    expect(readMarked("[host.'https://cache']\n")).toBeUndefined()
    expect(readMarked(insertBlock('', 0, tables).replace('# END spegel-ts', ''))).toBeUndefined()
  })

  it('removes every block, as in two files that were joined', () => {
    const one = insertBlock('a = 1\n', 6, tables)
    expect(readMarked(one + one)?.users).toBe('a = 1\na = 1\n')
  })
})
