'use strict';
// Written by mtlsctl. This folder is one release and is never edited. See README.md of the runtime `node`.

const { constants, X509Certificate } = require('node:crypto');
const dns = require('node:dns');
const fs = require('node:fs');
const https = require('node:https');
const net = require('node:net');
const path = require('node:path');
const tls = require('node:tls');

const SERVICE = "schedule";
const RELEASE = "65ffccab9b2ecf81";
const CURRENT = "/etc/mtlsctl/schedule/current";
const CERTIFICATE = "/etc/mtlsctl/schedule/releases/65ffccab9b2ecf81/tls.crt";
const PRIVATE_KEY = "/etc/mtlsctl/schedule/releases/65ffccab9b2ecf81/tls.key";

const LISTENERS = new Map([
  ["main", {
    certificate: "/etc/mtlsctl/schedule/releases/65ffccab9b2ecf81/tls.crt",
    privateKey: "/etc/mtlsctl/schedule/releases/65ffccab9b2ecf81/tls.key",
    clientCertificate: 'required',
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.3',
    clientsTrust: null, // Nobody is declared to call here: an empty list of authorities lets nobody in.
    callers: null, // The authorities alone say who gets in.
  }],
]);

const CALLEES = new Map([
]);

// All copies of this module in one process share what is live, whichever release each was loaded from.
const SHARED = Symbol.for('mtlsctl/1/' + CURRENT);

const UNDER_WAY = 10000; // Milliseconds that a handshake may take which began before a reload.

function readAnchors(file) {
  const text = fs.readFileSync(file, 'utf8');
  if (!text.includes('-----BEGIN CERTIFICATE-----')) {
    throw new Error('no certificate in ' + file); // Node would believe nobody, and say nothing.
  }
  return text;
}

function certificatesIn(text) {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) || [];
  return blocks.map((block) => new X509Certificate(block));
}

// Node writes a name line by line, the most general part first; RFC 4514 the other way round, with commas. An empty
// name is undefined in Node.
function nameOf(lines) {
  return (lines || '').split('\n').reverse().join(',');
}

// Reads every file once. Throws when anything is missing or does not fit, so that a release is live whole or not.
function load() {
  const cert = fs.readFileSync(CERTIFICATE, 'utf8');
  const key = fs.readFileSync(PRIVATE_KEY, 'utf8');
  const closed = {
    cert,
    key,
    ca: [],
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.3',
    secureOptions: constants.SSL_OP_NO_TICKET, // A resumed session would not be checked again.
  };
  const listeners = new Map();
  const callers = new Map();
  const issuers = new Map();
  for (const [name, listener] of LISTENERS) {
    callers.set(name, listener.callers);
    issuers.set(name, listener.callers === null ? [] : certificatesIn(readAnchors(listener.clientsTrust)));
    listeners.set(name, Object.assign({}, closed, {
      cert: fs.readFileSync(listener.certificate, 'utf8'),
      key: fs.readFileSync(listener.privateKey, 'utf8'),
      ca: listener.clientsTrust === null ? [] : [readAnchors(listener.clientsTrust)],
      // For `optional` too a certificate is required until keepReloaded() watches what is shown instead of one.
      requestCert: listener.clientCertificate !== 'none',
      minVersion: listener.minVersion,
      maxVersion: listener.maxVersion,
    }));
  }
  const modes = new Map(Array.from(LISTENERS, ([name, listener]) => [name, listener.clientCertificate]));
  const callees = new Map();
  for (const [name, callee] of CALLEES) {
    callees.set(name, {
      endpoints: callee.endpoints,
      serverName: callee.serverName,
      options: Object.assign(callee.asks ? { cert, key } : {}, {
        ca: callee.serversTrust === null ? undefined : [readAnchors(callee.serversTrust)],
        servername: callee.serverName, // Sent, and checked against the certificate.
        rejectUnauthorized: true,
        minVersion: 'TLSv1.2',
        maxVersion: 'TLSv1.3',
        maxCachedSessions: 0,
        lookup: lookupFor(callee),
      }),
    });
  }
  for (const options of [closed, ...listeners.values(), ...Array.from(callees.values(), (one) => one.options)]) {
    tls.createSecureContext(options); // Refuses a key that does not belong to the certificate.
  }
  return { release: RELEASE, closed, listeners, modes, callers, issuers, callees };
}

// The callee's name leads to its endpoints, whatever DNS knows of it; every other name is looked up as ever.
function lookupFor(callee) {
  return function lookup(hostname, options, callback) {
    const given = typeof options === 'function' ? {} : options;
    const done = typeof options === 'function' ? options : callback;
    if (hostname !== callee.serverName) {
      dns.lookup(hostname, given, done);
      return;
    }
    const numeric = callee.endpoints
      .map((endpoint) => ({ address: endpoint.address, family: net.isIP(endpoint.address) }))
      .filter((one) => one.family !== 0 && (!given.family || one.family === given.family));
    if (numeric.length === 0) {
      dns.lookup(callee.endpoints[0].address, given, done);
    } else if (given.all) {
      process.nextTick(done, null, numeric);
    } else {
      process.nextTick(done, null, numeric[0].address, numeric[0].family);
    }
  };
}

function shared() {
  if (globalThis[SHARED] === undefined) {
    globalThis[SHARED] = {
      live: load(),
      servers: new Map(),
      guarded: new WeakMap(),
      agents: new Map(),
      watching: false,
    };
  }
  return globalThis[SHARED];
}

function entry(map, name, kind) {
  const found = map.get(name);
  if (found === undefined) {
    throw new Error(SERVICE + ' has no ' + kind + ' ' + JSON.stringify(name) + ' in release ' + shared().live.release);
  }
  return found;
}

/**
 * Options for `https.createServer`, `http2.createSecureServer` or `tls.createServer`. Until `keepReloaded(server)` looks
 * at callers, those let nobody in where callers are told apart by name, and nobody without a certificate where one is
 * optional.
 */
function serverOptions(listener = 'main') {
  const live = shared().live;
  const options = Object.assign({}, entry(live.listeners, listener, 'listener'));
  const isByName = live.callers !== undefined && live.callers.get(listener) !== null;
  return isByName ? Object.assign(options, { ca: [] }) : options;
}

/** Options for `https.request`, `https.Agent`, `tls.connect` or undici's `connect`. */
function agentOptions(callee) {
  return Object.assign({}, entry(shared().live.callees, callee, 'callee').options);
}

/** The `https.Agent` of the live release. Ask for it at each request: after a reload there is a new one. */
function agent(callee) {
  const state = shared();
  if (!state.agents.has(callee)) {
    state.agents.set(callee, new https.Agent(agentOptions(callee)));
  }
  return state.agents.get(callee);
}

/** Where the callee's instances are: a list of `{ address, port }`. */
function endpoints(callee) {
  return entry(shared().live.callees, callee, 'callee').endpoints.map((one) => Object.assign({}, one));
}

/** `https://<name>:<port><path>` of the callee; with `agent(callee)` its name needs no DNS. */
function url(callee, below = '/') {
  const found = entry(shared().live.callees, callee, 'callee');
  return new URL(below, 'https://' + found.serverName + ':' + found.endpoints[0].port).href;
}

/** The name of the live release. */
function release() {
  return shared().live.release;
}

/**
 * Lets a server follow what mtlsctl switches: at SIGHUP, and when the symlink `current` moves unless `watch` is false.
 * Open connections go on; new ones are checked by the new release.
 */
function keepReloaded(server, listener = 'main', options = {}) {
  const state = shared();
  entry(state.live.listeners, listener, 'listener');
  if (!state.servers.has(server)) {
    guard(state, server);
    server.once('close', () => state.servers.delete(server));
  }
  state.servers.set(server, listener);
  follow(state, options.watch !== false);
  reload(); // The pointer may have moved since the module was loaded,
  serve(state, server, listener); // or the server was made before that.
  return server;
}

// Node takes what is asked of a caller from the server at each connection, and the rest from its secure context.
function serve(state, server, listener) {
  const mode = modeOf(state, listener);
  const before = state.guarded.get(server);
  server.setSecureContext(state.live.listeners.get(listener) || state.live.closed);
  server.requestCert = mode !== 'none';
  server.rejectUnauthorized = mode !== 'optional';
  // A handshake that is under way was asked for what was asked for before.
  state.guarded.set(server, {
    listener,
    mode,
    before: before === undefined ? mode : before.mode,
    until: Date.now() + UNDER_WAY,
  });
}

function modeOf(state, listener) {
  return (state.live.modes !== undefined && state.live.modes.get(listener)) || 'required';
}

// With `rejectUnauthorized: false` Node hands over whoever comes, with whatever certificate, and it never compares
// names. So before the program sees a connection it is looked at here: a certificate that is not in order, or not of a
// declared caller, is no way in; only none at all may be.
function guard(state, server) {
  const emit = server.emit;
  server.emit = function emitIfInOrder(event, socket) {
    if (event === 'secureConnection' && !mayPass(state, state.guarded.get(server), socket)) {
      socket.destroy();
      return true;
    }
    return emit.apply(this, arguments);
  };
}

function mayPass(state, asked, socket) {
  if (showsNothing(socket)) {
    const modes = Date.now() < asked.until ? [asked.mode, asked.before] : [asked.mode];
    return modes.some((mode) => mode !== 'required');
  }
  return socket.authorized === true && isCaller(state, asked.listener, socket);
}

// Whether the authority, which vouches for more than may call, vouches for one that may: names as wholes. Node cannot
// limit the depth of a chain, and an intermediate may bear any name: so the authority itself must have signed.
function isCaller(state, listener, socket) {
  const live = state.live;
  const callers = live.callers === undefined ? null : live.callers.get(listener);
  if (callers === null) {
    return true;
  }
  const certificate = socket.getPeerX509Certificate();
  if (callers === undefined || certificate === undefined) {
    return false;
  }
  try {
    const issuer = nameOf(certificate.issuer);
    if (!callers.has(issuer + '|' + nameOf(certificate.subject))) {
      return false;
    }
    // A release from before this was looked at knows no authorities but those of the estate, which have none below.
    return live.issuers === undefined || live.issuers.get(listener).some(
      (authority) => nameOf(authority.subject) === issuer && certificate.verify(authority.publicKey),
    );
  } catch (error) {
    return false; // What cannot be read is nobody's name, and must not end the program.
  }
}

function showsNothing(socket) {
  const shown = socket.getPeerCertificate();
  return shown !== null && typeof shown === 'object' && Object.keys(shown).length === 0;
}

/** The same for a program that only calls. */
function keepAgentsReloaded(options = {}) {
  follow(shared(), options.watch !== false);
  reload();
}

function follow(state, watch) {
  if (!state.signalled) {
    state.signalled = true;
    process.on('SIGHUP', reload);
  }
  if (watch && !state.watching) {
    try {
      const watcher = fs.watch(path.dirname(CURRENT), { persistent: false }, (event, name) => {
        if (name === null || name === path.basename(CURRENT)) {
          reload();
        }
      });
      watcher.on('error', (error) => report('is no longer told of new releases: ' + error.message));
      state.watching = true;
    } catch (error) {
      report('is not told of new releases and waits for SIGHUP: ' + error.message);
    }
  }
}

/** Makes the release that `current` names the live one, or keeps the live one and says why. Gives whether it is live. */
function reload() {
  const state = shared();
  let problem = null;
  for (let attempt = 0; attempt < 2; attempt += 1) {
    try {
      // Resolved once for each load: every path below is that of one immutable release.
      const folder = fs.realpathSync(CURRENT);
      if (path.basename(folder) !== state.live.release) {
        take(state, loadFrom(path.join(folder, 'mtls.cjs')));
      }
      return true;
    } catch (error) {
      problem = error;
    }
  }
  report('keeps release ' + state.live.release + ': ' + problem.message);
  return false;
}

function loadFrom(file) {
  delete require.cache[file];
  try {
    return require(file).load();
  } finally {
    delete require.cache[file];
  }
}

function take(state, next) {
  const idle = Array.from(state.agents.values());
  state.live = next;
  state.agents = new Map();
  for (const [server, listener] of state.servers) {
    serve(state, server, listener); // A listener that is no longer declared lets nobody in.
  }
  for (const old of idle) {
    for (const sockets of Object.values(old.freeSockets)) {
      sockets.forEach((socket) => socket.destroy());
    }
  }
}

function report(message) {
  console.error('mtlsctl: ' + SERVICE + ' ' + message);
}

module.exports = {
  serverOptions,
  agentOptions,
  agent,
  endpoints,
  url,
  release,
  keepReloaded,
  keepAgentsReloaded,
  reload,
  load,
};
