'use strict';
// A service as its author would write it: TLS comes from mtlsctl's module and nothing else.
// Arguments: the module, the service's name, and its doors as JSON: [{ listener, address, port }]; and for how
// many milliseconds it does nothing else now and then, as programs do that compute.
const https = require('node:https');

const [module_, service, doors, stall] = process.argv.slice(2);
const mtls = require(module_);

for (const { listener, address, port } of JSON.parse(doors)) {
  const server = https.createServer(mtls.serverOptions(listener), (request, response) => {
    response.setHeader('Connection', 'close');
    response.end(service + '\n');
  });
  // Without watching: only the signal tells it of a new release.
  mtls.keepReloaded(server, listener, { watch: false }).listen(port, address);
}

if (Number(stall) > 0) {
  setInterval(() => {
    const end = Date.now() + Number(stall);
    while (Date.now() < end);
  }, 2 * Number(stall));
}
