/** Explains errors of the operating system: what failed, on which path or address, and what an operator can do. */
import { errorMessage } from './errors.ts'

/** By the `code` of Node's errors. A code that is missing here is a bug of the program. */
const remedies: Readonly<Record<string, string>> = {
  E2BIG: 'pass fewer or shorter arguments',
  EACCES: 'run as a user with access, or change the permissions',
  EADDRINUSE: 'stop what listens there, or choose another address',
  EADDRNOTAVAIL: 'choose an address of this machine',
  EAFNOSUPPORT: 'choose an address of a family that this system supports',
  EBUSY: 'stop what uses it, and try again',
  ECONNABORTED: 'check that the other side runs, and try again',
  ECONNREFUSED: 'check that something listens there',
  ECONNRESET: 'check that the other side runs, and try again',
  EDQUOT: 'free space, or raise the quota',
  EEXIST: 'remove it, or choose another path',
  EFBIG: 'choose a file system that takes files of this size',
  EHOSTDOWN: 'check the address and the network',
  EHOSTUNREACH: 'check the address and the network',
  EINVAL: 'choose another path or address',
  EIO: 'check the disk',
  EISDIR: 'choose a file, not a directory',
  ELOOP: 'remove the loop of symbolic links, or choose another path',
  EMFILE: 'raise the limit of open files (ulimit -n)',
  EMLINK: 'remove links, or choose another file system',
  ENAMETOOLONG: 'choose a shorter path',
  ENETDOWN: 'check the network',
  ENETUNREACH: 'check the address and the network',
  ENFILE: "raise the system's limit of open files (sysctl fs.file-max)",
  ENODEV: 'choose an existing device or path',
  ENOENT: 'create it, or choose an existing path',
  ENOEXEC: 'choose a program for this machine',
  ENOMEM: 'free memory, or raise the limit',
  ENOSPC: 'free space on the file system',
  ENOTDIR: 'a part of the path is not a directory: choose another path',
  ENOTEMPTY: 'empty the directory, or choose another path',
  ENOTSUP: 'choose a file system that supports this',
  ENXIO: 'choose an existing device or path',
  EPERM: 'run as a user with the permission, such as root',
  EPIPE: 'check that the other side runs, and try again',
  EPROTO: 'check what listens there',
  EROFS: 'mount it writable, or choose another path',
  ESTALE: 'mount the file system again',
  ETIMEDOUT: 'check the address and the network',
  ETXTBSY: 'stop the program, and try again',
  EXDEV: 'choose a path on the same file system',
  ENOTFOUND: 'check the name and the DNS servers',
  UND_ERR_CONNECT_TIMEOUT: 'check the address and the network',
  UND_ERR_SOCKET: 'check that the other side runs, and try again',
}
/** System calls of inotify report limits of their own with the codes for files and disks. */
const watchRemedies: Readonly<Record<string, string>> = {
  EMFILE: 'no inotify instances or open files are left: raise sysctl fs.inotify.max_user_instances, or ulimit -n',
  ENOSPC: 'no inotify watches are left: raise sysctl fs.inotify.max_user_watches',
}

/** One line with the remedy; undefined when no error of the system is behind it. */
export function explainSystemError(error: unknown): string | undefined {
  const remedy = remedyFor(error)
  return remedy === undefined ? undefined : `${errorMessage(error)}: ${remedy}`
}

/** What to do about an error of the system, also one that is the cause of others. */
export function remedyFor(error: unknown): string | undefined {
  const found = findSystemError(error)
  if (found === undefined) return undefined
  const { code, syscall } = found
  if (syscall === 'watch' && watchRemedies[code] !== undefined) return watchRemedies[code]
  return remedies[code] ?? (code.startsWith('EAI_') ? remedies['ENOTFOUND'] : undefined)
}

function findSystemError(error: unknown): { code: string; syscall: string | undefined } | undefined {
  if (!(error instanceof Error)) return undefined
  const { code, syscall } = error as NodeJS.ErrnoException
  if (typeof code === 'string' && (syscall !== undefined || code in remedies)) return { code, syscall }
  const nested: unknown[] = error instanceof AggregateError ? error.errors : []
  return [error.cause, ...nested].map(findSystemError).find((found) => found !== undefined)
}
