/**
 * A child process that cannot change anything on this machine: everything is mounted read-only for it but one directory in
 * memory, and it has a network of its own. Commands may be given any path there, also as root.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { join } from 'node:path'

const checkout = join(import.meta.dirname, '../..')

/**
 * In the directory: `checkout/` is this one, `full/` has no space left, `readonly/` cannot be written. Mounts that cannot
 * be made read-only, such as those of another file system below /proc, are read-only already or hold no files.
 */
const script = `
set -e
directory=$1 checkout=$2 user=$3
shift 3
ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o size=64m,mode=777 tmpfs "$directory"
mkdir "$directory/checkout" "$directory/full" "$directory/readonly"
mount --bind "$checkout" "$directory/checkout"
mount -t tmpfs -o size=4k,nr_inodes=3,mode=777 tmpfs "$directory/full"
head -c 4096 /dev/zero > "$directory/full/file"
mkdir "$directory/full/directory"
mount -t tmpfs -o ro,mode=777 tmpfs "$directory/readonly"
while read -r _ target _; do
  case $target in
    "$directory" | "$directory/full") ;;
    *) mount -o remount,bind,ro "$target" 2>/dev/null || true ;;
  esac
done < /proc/self/mounts
if touch "$checkout/written" / 2>/dev/null; then
  echo 'the sandbox is writable' >&2
  exit 9
fi
cd "$directory"
export HOME="$directory" TMPDIR="$directory"
if [ "$user" = root ]; then exec "$@"; fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all "$@"
`

/** `directory` exists, and is empty again when the process has ended. `nobody`: without root and capabilities. */
export function spawnInSandbox(
  directory: string,
  user: 'root' | 'nobody',
  args: readonly string[],
): ChildProcessByStdio<null, Readable, Readable> {
  const program = [join(directory, 'checkout/bin/run'), ...args]
  // Who is not root becomes root of a user namespace, which may mount as well.
  const namespaces = ['--mount', '--net', ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'])]
  return spawn('unshare', [...namespaces, 'sh', '-c', script, 'sh', directory, checkout, user, ...program], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}
