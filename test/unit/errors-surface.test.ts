import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { sourceFiles } from '../support/borders.ts'
import { silentCatches } from '../support/silent-catches.ts'

const files = sourceFiles(join(import.meta.dirname, '../../src'))
/** Tools around the mirror: no node depends on them. */
const tools = /^(benchmark|bench|demo|testbed)\/|\/generated\//
/** The one place where it does not matter what a parser throws. */
const parsers = 'lib/foreign.ts'

describe('an error', () => {
  it('is dropped nowhere in the mirror', () => {
    const product = files.filter(({ path }) => !tools.test(path) && path !== parsers)
    expect(product.length).toBeGreaterThan(100)
    expect(product.flatMap(silentCatches)).toEqual([])
  })

  it.each([
    'try { a() } catch {}',
    'try {\n  a()\n} catch {\n  return undefined\n}',
    'try { a() } catch (error) {\n  return undefined\n}',
    'try { a() } catch (error) { if (x) { return errors } }',
    'await a().catch(() => undefined)',
    'await a().catch(() => {})',
    'await a().catch(async () => b())',
    'await a().catch((error: unknown) => undefined)',
    'a().catch(function () {})',
    'a().then(b, () => false)',
    'a().then(\n  () => true,\n  () => false,\n)',
    "socket.on('error', () => undefined)",
    'await Promise.allSettled(all)',
    '{\n  void Promise.allSettled([a()])\n}',
  ])('is found dropped in %j', (text) => {
    expect(silentCatches({ path: 'x.ts', text })).toHaveLength(1)
  })

  it.each([
    'try { a() } catch (error) {\n  if (!isNotFound(error)) throw error\n}',
    'await a().catch(expecting(isNotFound, undefined))',
    'await a().catch((error: unknown) => {\n  problems.push(error)\n})',
    'opening.catch(forget)',
    'a().then((x) => f(x, () => 1))',
    'a().then(b, isGone)',
    'const results = await Promise.allSettled(all)',
    '// catch {',
    '/** .catch(() => undefined) */',
    "const url = 'http://catch'",
  ])('is not dropped in %j', (text) => {
    expect(silentCatches({ path: 'x.ts', text })).toEqual([])
  })
})
