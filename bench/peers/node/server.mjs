// The Node peer: node:http, tuned as far as its options go. No packages. Started with the folder of its files.
import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { basename, join } from 'node:path';
import { Transform, pipeline } from 'node:stream';

const highWaterMark = 1 << 20;
const folder = process.argv[2];

// What the socket read is ours alone until it is written: changing it in place spares an allocation a chunk.
function upperInPlace(chunk) {
  for (let i = 0; i < chunk.length; i++) {
    const c = chunk[i];
    if (c >= 97 && c <= 122) chunk[i] = c - 32;
  }
  return chunk;
}

const upper = () =>
  new Transform({
    highWaterMark,
    transform(chunk, _, done) {
      done(null, upperInPlace(chunk));
    },
  });

// The script that one would write for this file: TPC-H lineitem, whose last column alone is ever quoted.
function filter(bound) {
  let rest = '';
  let header = true;
  const keep = (text) => {
    let out = '';
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; start = end + 1, end = text.indexOf('\n', start)) {
      if (header) {
        header = false;
        out += 'l_orderkey,revenue,l_shipmode\n';
        continue;
      }
      const fields = text.slice(start, end).split(',', 15);
      if (+fields[4] < bound) out += `${fields[0]},${fields[5] * (1 - fields[6])},${fields[14]}\n`;
    }
    rest = text.slice(start);
    return out;
  };
  return new Transform({
    highWaterMark,
    transform(chunk, _, done) {
      done(null, Buffer.from(keep(rest + chunk.latin1Slice()), 'latin1')); // latin1: one character a byte, both ways
    },
    flush(done) {
      done(null, Buffer.from(rest ? keep(rest + '\n') : '', 'latin1'));
    },
  });
}

function sink(request, response) {
  let total = 0;
  request.on('data', (chunk) => {
    total += chunk.length;
  });
  request.on('end', () => response.end(`${total}\n`));
}

function disk(request, response) {
  const file = createWriteStream(join(folder, 'disk-node'), { highWaterMark });
  pipeline(request, file, (error) => (error ? response.destroy() : response.end(`${file.bytesWritten}\n`)));
}

async function download(name, response) {
  const path = join(folder, basename(name));
  response.writeHead(200, { 'Content-Length': (await stat(path)).size });
  pipeline(createReadStream(path, { highWaterMark }), response, (error) => error && response.destroy());
}

const server = createServer({ highWaterMark, noDelay: true }, (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const length = request.headers['content-length'];
  const broken = (error) => error && response.destroy();
  const stream = (...stages) => pipeline(request, ...stages, response, broken);
  // An answer as long as the body needs no chunked framing.
  const sameLength = () => response.writeHead(200, length === undefined ? {} : { 'Content-Length': length });
  switch (url.pathname) {
    case '/healthz':
      response.end('ok\n');
      break;
    case '/sink':
      sink(request, response);
      break;
    case '/echo':
      sameLength();
      stream();
      break;
    case '/upper':
      sameLength();
      stream(upper());
      break;
    case '/disk':
      disk(request, response);
      break;
    case '/filter':
      response.writeHead(200, { 'Content-Type': 'text/csv' });
      stream(filter(Number(url.searchParams.get('quantity_lt'))));
      break;
    default:
      if (url.pathname.startsWith('/file/')) {
        download(url.pathname, response).catch(() => response.writeHead(404).end());
      } else {
        response.writeHead(404).end();
      }
  }
});
server.requestTimeout = 0;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
