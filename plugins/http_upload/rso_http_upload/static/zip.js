// The files inside a ZIP, read where it lies: its directory first, each file when its turn comes.
const MOST_ENTRIES = 50000;
const MOST_SIZE = 16 * 2 ** 30;

async function directory(blob) {
  const tail = new DataView(await blob.slice(Math.max(0, blob.size - 65557)).arrayBuffer());
  for (let at = tail.byteLength - 22; at >= 0; at -= 1) {
    if (tail.getUint32(at, true) !== 0x06054b50) continue;
    const size = tail.getUint32(at + 12, true), offset = tail.getUint32(at + 16, true);
    if (size === 0xffffffff || offset === 0xffffffff) throw new Error("a ZIP of more than 4 GB: please unpack it first");
    return new DataView(await blob.slice(offset, offset + size).arrayBuffer());
  }
  throw new Error("not a whole ZIP");
}

class Entry {
  constructor(zip, name, method, packed, size, offset) {
    Object.assign(this, { zip, name, method, packed, size, offset });
  }

  async stream() {
    const head = new DataView(await this.zip.slice(this.offset, this.offset + 30).arrayBuffer());
    const begin = this.offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
    const data = this.zip.slice(begin, begin + this.packed);
    return this.method === 0 ? data.stream() : data.stream().pipeThrough(new DecompressionStream("deflate-raw"));
  }

  // The first bytes alone; what lies behind is never unpacked for them.
  async first(count) {
    const reader = (await this.stream()).getReader();
    const parts = [];
    let size = 0;
    while (size < count) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      size += value.length;
    }
    reader.cancel().catch(() => {});
    return new Blob(parts).slice(0, count).arrayBuffer();
  }

  async blob() {
    const made = await new Response(await this.stream()).blob();
    if (made.size !== this.size) throw new Error("the ZIP is broken here");
    return made;
  }
}

export async function entries(zip) {
  const view = await directory(zip);
  const found = [];
  for (let at = 0; at + 46 <= view.byteLength && view.getUint32(at, true) === 0x02014b50;) {
    const flags = view.getUint16(at + 8, true), method = view.getUint16(at + 10, true);
    const packed = view.getUint32(at + 20, true), size = view.getUint32(at + 24, true);
    const names = [28, 30, 32].map((where) => view.getUint16(at + where, true));
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, names[0]));
    const usable = !name.endsWith("/") && !(flags & 1) && (method === 0 || method === 8) && size <= MOST_SIZE;
    if (usable) found.push(new Entry(zip, name, method, packed, size, view.getUint32(at + 42, true)));
    if (found.length > MOST_ENTRIES) throw new Error("too many files in one ZIP");
    at += 46 + names[0] + names[1] + names[2];
  }
  return found;
}
