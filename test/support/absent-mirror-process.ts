/** A mirror that has nothing: answers 404 to every request, and prints each as a line. Argument: its port. */
import { createServer } from 'node:http'

const [port = ''] = process.argv.slice(2)
const server = createServer((request, response) => {
  process.stdout.write(`${request.method} ${request.url}\n`)
  response.writeHead(404).end()
})
server.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'))
