/**
 * Interrupts file operations at a chosen call, as a kill or a full, read-only or failing file system would. Stands in
 * for `node:fs/promises` in a test (`vi.mock`), because the real faults cannot be placed between two given calls.
 * Without a fault every call goes to the real functions.
 */
import { constants, readdirSync, rmSync } from 'node:fs'
import type * as Promises from 'node:fs/promises'
import { join } from 'node:path'

export interface Fault {
  /** `kill`: no call succeeds any more. Otherwise the code of the error that calls that write throw. */
  kind: 'kill' | 'ENOSPC' | 'EROFS' | 'EACCES' | 'EIO'
  /** Fail this call (from 0) only, or this and all later ones. A kill is always for good. */
  once: boolean
  /** Counts all calls for `kill`, else only those that write. */
  at: number
}

const writing = new Set(
  `appendFile chmod chown copyFile cp lchmod lchown link lutimes mkdir mkdtemp rename rm rmdir symlink truncate unlink
   utimes writeFile`.split(/\s+/),
)
const handleWriting = new Set([
  'appendFile',
  'chmod',
  'chown',
  'datasync',
  'sync',
  'truncate',
  'utimes',
  'write',
  'writeFile',
  'writev',
])
const removing = new Set(['rm', 'rmdir', 'unlink'])
/** A write that fails may have written a part. */
const partlyWriting = new Set(['appendFile', 'write', 'writeFile'])

let fault: Fault | undefined
let calls = 0
let writes = 0

/** Runs an action with a fault, or without one to count its calls. */
export async function interrupted<T>(
  injected: Fault | undefined,
  action: () => Promise<T>,
): Promise<{ error: unknown; result: T | undefined; calls: number; writes: number }> {
  fault = injected
  calls = 0
  writes = 0
  try {
    const result = await action()
    return { error: undefined, result, calls, writes }
  } catch (error) {
    return { error, result: undefined, calls, writes }
  } finally {
    fault = undefined
  }
}

export class Killed extends Error {
  constructor() {
    super('killed')
  }
}

/** Undefined: the call may go on. */
function failureOf(name: string, isWrite: boolean, path: unknown): Error | undefined {
  const index = fault?.kind === 'kill' ? calls : writes
  calls += 1
  if (isWrite) writes += 1
  if (fault === undefined || index < fault.at || (fault.kind !== 'kill' && !isWrite)) return undefined
  if (fault.kind === 'kill') return new Killed()
  if (fault.once && index > fault.at) return undefined
  // A full file system still lets files be removed.
  if (fault.kind === 'ENOSPC' && removing.has(name)) return undefined
  const message = `${fault.kind}: injected, ${name} '${String(path)}'`
  return Object.assign(new Error(message), { code: fault.kind, syscall: name, path })
}

type AnyFunction = (...args: unknown[]) => unknown

/** The module `node:fs/promises`, with faults. */
export function interruptible(actual: typeof Promises): typeof Promises {
  const wrapped: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(actual)) {
    wrapped[name] = typeof value === 'function' ? wrap(name, value as AnyFunction) : value
  }
  wrapped['default'] = wrapped
  return wrapped as typeof Promises
}

function wrap(name: string, actual: AnyFunction): AnyFunction {
  return async (...args) => {
    const isWrite = writing.has(name) || (name === 'open' && opensForWriting(args[1]))
    const failure = failureOf(name, isWrite, args[0])
    if (failure !== undefined) {
      if (isFirstFailure()) await leavePart(name, actual, args)
      throw failure
    }
    const result = await actual(...args)
    return name === 'open' ? wrapHandle(result as object) : result
  }
}

function opensForWriting(flags: unknown = 'r'): boolean {
  if (typeof flags === 'number') return (flags & (constants.O_WRONLY | constants.O_RDWR | constants.O_CREAT)) !== 0
  return /[wa+]/.test(String(flags))
}

function isFirstFailure(): boolean {
  return fault !== undefined && (fault.kind === 'kill' ? calls : writes) === fault.at + 1
}

/** What a call that was interrupted in the middle leaves behind. */
async function leavePart(name: string, actual: AnyFunction, args: unknown[]): Promise<void> {
  if (fault?.kind === 'EROFS' || fault?.kind === 'EACCES') return
  if (partlyWriting.has(name) && (typeof args[1] === 'string' || Buffer.isBuffer(args[1]))) {
    await Promise.resolve(actual(args[0], args[1].slice(0, args[1].length / 2), ...args.slice(2))).catch(
      () => undefined,
    )
  } else if (name === 'rm') {
    const path = String(args[0])
    try {
      const children = readdirSync(path).sort()
      for (const child of children.slice(0, Math.ceil(children.length / 2))) {
        rmSync(join(path, child), { recursive: true, force: true })
      }
    } catch {
      // Not a directory: nothing is removed partly.
    }
  }
}

function wrapHandle(handle: object): object {
  return new Proxy(handle, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      if (typeof name !== 'string' || name === 'createReadStream' || name === 'createWriteStream') {
        return value.bind(target) as unknown
      }
      return async (...args: unknown[]) => {
        // Without it, tests would run out of descriptors; the kernel closes those of a killed process.
        if (name === 'close') return (value as AnyFunction).apply(target, args)
        const failure = failureOf(name, handleWriting.has(name), 'handle')
        if (failure === undefined) return (value as AnyFunction).apply(target, args)
        if (isFirstFailure() && partlyWriting.has(name) && fault?.kind !== 'EROFS' && fault?.kind !== 'EACCES') {
          const [data] = args
          if (typeof data === 'string' || Buffer.isBuffer(data)) {
            await (value as AnyFunction).apply(target, [data.slice(0, data.length / 2)])
          }
        }
        throw failure
      }
    },
  })
}
