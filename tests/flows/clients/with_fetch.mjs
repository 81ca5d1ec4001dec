import { createReadStream, createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const [url, source, sink] = process.argv.slice(2);
const body = Readable.toWeb(createReadStream(source));
const reply = await fetch(url, { method: "POST", body, duplex: "half" });
if (!reply.ok) throw new Error(await reply.text());
await pipeline(Readable.fromWeb(reply.body), createWriteStream(sink));
