'use strict';
// One listener of mtlsctl's module behind each kind of server that its options are for.
// Arguments: the module, the listener, and the address and port of each kind as JSON.
const http2 = require('node:http2');
const https = require('node:https');
const tls = require('node:tls');

const [module_, listener, places] = process.argv.slice(2);
const mtls = require(module_);
const answer = 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nkiosk';
const end = (request, response) => response.end('kiosk');
const kinds = {
  https: () => https.createServer(mtls.serverOptions(listener), end),
  http2: () => http2.createSecureServer(Object.assign({ allowHTTP1: true }, mtls.serverOptions(listener)), end),
  tls: () => tls.createServer(mtls.serverOptions(listener), (socket) => socket.on('error', () => {}).end(answer)),
  // As a program has it that forgot to let its server follow.
  unwatched: () => https.createServer(mtls.serverOptions(listener), end),
};

for (const [kind, [address, port]] of Object.entries(JSON.parse(places))) {
  const server = kinds[kind]();
  if (kind !== 'unwatched') {
    mtls.keepReloaded(server, listener, { watch: false });
  }
  server.listen(port, address);
}
