/** nginx over an OCI layout, under the same URLs as ours: the yardstick for what serving files costs. */
import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { logTo, waitUntil } from '../testbed/process.ts'
import { type ServerProcess, type Workplace, registryPort } from './workplace.ts'

/** `proxied`: passes everything on to the registry on this IP instead. */
export async function startNginx(
  workplace: Workplace,
  binary: string,
  ip: string,
  source: { layout: string } | { proxied: string },
): Promise<ServerProcess> {
  const folder = join(workplace.folder, `nginx-${ip}`)
  await mkdir(folder)
  const config = join(folder, 'nginx.conf')
  const log = join(folder, 'error.log')
  await writeFile(config, configText(folder, ip, source))
  const child = spawn(binary, ['-p', folder, '-c', config, '-e', log], { stdio: logTo(log) })
  const server = workplace.adopt(ip, child)
  const answers = async () => (await fetch(`http://${ip}:${registryPort}/livez`)).status === 200
  await waitUntil('nginx', answers, { timeoutMs: 10_000, child, log })
  return server
}

function configText(folder: string, ip: string, source: { layout: string } | { proxied: string }): string {
  const location =
    'layout' in source
      ? `location ~ "^/v2/.*/sha256:(?<hex>[0-9a-f]+)$" { alias ${source.layout}/blobs/sha256/$hex; }`
      : `location /v2/ { proxy_pass http://${source.proxied}:${registryPort}; proxy_http_version 1.1; proxy_buffering off; }`
  return `daemon off;
worker_processes 2;
pid ${folder}/pid;
${process.getuid?.() === 0 ? 'user root;' : ''}
events { worker_connections 512; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path ${folder}/t1; proxy_temp_path ${folder}/t2; fastcgi_temp_path ${folder}/t3;
  uwsgi_temp_path ${folder}/t4; scgi_temp_path ${folder}/t5;
  server {
    listen ${ip}:${registryPort};
    location = /livez { return 200; }
    ${location}
  }
}
`
}
