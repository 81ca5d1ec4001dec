// The pipeline as a script: streams, JSON.parse for each line, a Map for the lookup, totals in another.
// node pipeline.mjs SALES.ndjson OUTPUT.ndjson customers=CUSTOMERS.csv prints one line of JSON, as peers/tables.py does.
import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const highWaterMark = 1 << 20;
const [source, output, lookup] = process.argv.slice(2);
const cpu = process.cpuUsage();
const began = performance.now();

const countries = new Map();
const rows = readFileSync(lookup.replace('customers=', ''), 'utf8').trimEnd().split('\n');
const names = rows[0].split(',');
for (const row of rows.slice(1)) {
  const fields = row.split(',');
  countries.set(fields[names.indexOf('customer')], fields[names.indexOf('country')]);
}

const totals = new Map();
function add(line) {
  const sale = JSON.parse(line);
  if (sale.kind !== 'purchase' || sale.amount < 5) return;
  const country = countries.get(sale.customer);
  if (country === undefined) return;
  const total = totals.get(country);
  if (total === undefined) {
    totals.set(country, { country, n: 1, revenue: sale.amount });
  } else {
    total.n += 1;
    total.revenue += sale.amount;
  }
}

let rest = '';
const lines = new Writable({
  highWaterMark,
  decodeStrings: false,
  write(chunk, _, done) {
    const text = rest + chunk;
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; start = end + 1, end = text.indexOf('\n', start)) {
      add(text.slice(start, end));
    }
    rest = text.slice(start);
    done();
  },
  final(done) {
    if (rest) add(rest);
    done();
  },
});
await pipeline(createReadStream(source, { highWaterMark, encoding: 'utf8' }), lines);
writeFileSync(output, [...totals.values()].map((total) => JSON.stringify(total) + '\n').join(''));

const seconds = (performance.now() - began) / 1000;
const used = process.cpuUsage(cpu);
const peak = readFileSync('/proc/self/status', 'utf8').match(/VmHWM:\s+(\d+)/)[1] * 1024;
console.log(JSON.stringify({ seconds, cpu_s: (used.user + used.system) / 1e6, peak_bytes: peak }));
