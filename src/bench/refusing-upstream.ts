/** An upstream that answers 429 to everything, as Docker Hub does once the limit is reached. A process of its own. */
import { createServer } from 'node:http'

const [ip = '', port = ''] = process.argv.slice(2)

createServer((request, response) => {
  process.stdout.write(`${request.method} ${request.url}\n`)
  response.writeHead(429, { 'content-type': 'application/json', 'retry-after': '60' })
  response.end('{"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests"}]}')
}).listen(Number(port), ip)
