'use strict';
// Calls through mtlsctl's module, one try for each case that comes as JSON on standard input, and prints what happened.
// A case: { id, module, callee } and, to pose as somebody else, { cert, key } with file names or null for none.
const fs = require('node:fs');
const https = require('node:https');

function identity(one) {
  if (one.cert === undefined) {
    return {};
  }
  return one.cert === null
    ? { cert: undefined, key: undefined }
    : { cert: fs.readFileSync(one.cert), key: fs.readFileSync(one.key) };
}

function call(one) {
  return new Promise((resolve) => {
    const mtls = require(one.module);
    const agent = new https.Agent(Object.assign(mtls.agentOptions(one.callee), identity(one)));
    const request = https.get(mtls.url(one.callee), { agent: one.cert === undefined ? mtls.agent(one.callee) : agent });
    request.setTimeout(10000, () => request.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })));
    request.on('error', (error) => resolve({ id: one.id, error: error.code || error.message }));
    request.on('response', (response) => {
      let body = '';
      const protocol = response.socket.getProtocol();
      response.on('data', (chunk) => (body += chunk));
      response.on('end', () => resolve({ id: one.id, status: response.statusCode, body, protocol }));
    });
  });
}

(async () => {
  const shown = [];
  for (const one of JSON.parse(fs.readFileSync(0, 'utf8'))) {
    shown.push(await call(one));
  }
  console.log(JSON.stringify(shown));
})();
