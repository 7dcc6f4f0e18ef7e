'use strict';
// A caller under way: one new connection after the other, each told on standard output as `<ms since 1970> <what>`.
// Arguments: the module, the callee, milliseconds between two calls. Follows new releases by SIGHUP.
// Some calls are under way at once, but never more than that: a server that is slow for a moment is not buried in calls.
const https = require('node:https');

const AT_ONCE = 3;
const [module_, callee, pause] = process.argv.slice(2);
const mtls = require(module_);
mtls.keepAgentsReloaded({ watch: false });

function call() {
  const began = Date.now();
  let said = false;
  const tell = (what) => {
    said = true;
    console.log(began + ' ' + what);
  };
  const request = https.get(mtls.url(callee), { agent: mtls.agent(callee) }, (response) => {
    response.resume();
    response.on('end', () => tell(response.statusCode === 200 ? 'ok' : 'HTTP ' + response.statusCode));
  });
  request.setTimeout(60000, () => request.destroy(new Error('no answer')));
  request.on('error', (error) => tell((error.code || '') + ' ' + error.message.split('\n')[0]));
  request.on('close', () => {
    if (!said) tell('closed without an answer');
    setTimeout(call, Number(pause) * AT_ONCE);
  });
}

for (let number = 0; number < AT_ONCE; number++) {
  setTimeout(call, Number(pause) * number);
}
