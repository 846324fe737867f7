// The backend in Node, over HTTP and TLS: alone, or as the one worker of a cluster whose primary accepts the
// connections and passes them.
//
// usage: node node.js alone|cluster HTTP TLS     (addresses)
'use strict';

const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');

const [mode, plain, secure] = process.argv.slice(2);
const chunk = Buffer.alloc(64 * 1024);

// bulk sends n bytes, and never has more of them in memory than the response wants.
function bulk(res, n) {
  res.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': n });
  const send = () => {
    while (n > 0) {
      const part = n < chunk.length ? chunk.subarray(0, n) : chunk;
      n -= part.length;
      if (!res.write(part)) {
        res.once('drain', send);
        return;
      }
    }
    res.end();
  };
  send();
}

function answer(req, res) {
  if (req.url.startsWith('/bulk/')) {
    bulk(res, Number(req.url.slice('/bulk/'.length)));
    return;
  }
  res.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': 3 });
  res.end('ok\n');
}

function listen(server, address) {
  const [host, port] = address.split(':');
  server.keepAliveTimeout = 3600 * 1000; // idle connections stay open, as with all others
  server.requestTimeout = 0;
  server.listen({ host, port: Number(port), backlog: 4096 });
}

// All of it ends with the standard input, also if whoever started it is killed.
if (cluster.isPrimary) {
  process.stdin.on('end', () => process.exit()).resume();
} else {
  process.on('disconnect', () => process.exit());
}

if (mode === 'cluster' && cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR; // the primary accepts and passes: what is to be measured
  cluster.on('exit', () => process.exit(1));
  cluster.fork();
} else {
  listen(http.createServer(answer), plain);
  const tls = { key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem'), ALPNProtocols: ['http/1.1'] };
  listen(https.createServer(tls, answer), secure);
}
