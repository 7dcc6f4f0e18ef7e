'use strict';
// A caller under way: a new connection every so often, each told on standard output as `<ms since 1970> <what>`.
// Arguments: the module, the callee, milliseconds between two calls. Follows new releases by SIGHUP.
const https = require('node:https');

const [module_, callee, pause] = process.argv.slice(2);
const mtls = require(module_);
mtls.keepAgentsReloaded({ watch: false });

function call() {
  const began = Date.now();
  const tell = (what) => console.log(began + ' ' + what);
  const request = https.get(mtls.url(callee), { agent: mtls.agent(callee) }, (response) => {
    response.resume();
    response.on('end', () => tell(response.statusCode === 200 ? 'ok' : 'HTTP ' + response.statusCode));
  });
  request.setTimeout(10000, () => request.destroy(new Error('no answer')));
  request.on('error', (error) => tell((error.code || '') + ' ' + error.message.split('\n')[0]));
}

setInterval(call, Number(pause));
