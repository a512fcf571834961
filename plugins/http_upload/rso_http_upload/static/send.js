// Sending: what is there already is not sent, what fails is tried again, what is large goes in pieces.
const GROUP_FILES = 20;
const GROUP_BYTES = 16 * 2 ** 20;
const LARGE = 64 * 2 ** 20;
const PIECE = 16 * 2 ** 20;
const PARALLEL = 3;
const PAUSES = [1, 2, 4, 8, 15, 30];
const MOST_PAUSE = 60;
const BUSY_TRIES = 10;

const sleep = (seconds) => new Promise((done) => { setTimeout(done, seconds * 1000); });

class Lost extends Error {}

// It was told to come again later: after so many seconds, or nobody says when.
class Busy extends Lost {
  constructor(reason, seconds) {
    super(reason);
    this.seconds = seconds > 0 ? Math.min(seconds, MOST_PAUSE) : 0;
  }
}

// Each has a SOP Instance UID once: other bytes under one that an earlier round has go behind it.
function rounds(files) {
  const found = [], seen = new Map();
  for (const file of files) {
    const turn = seen.get(file.uid) || 0;
    seen.set(file.uid, turn + 1);
    (found[turn] ||= []).push(file);
  }
  return found;
}

const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// What tells a file from another of its UID and length, so that only its own pieces are gone on with: a digest of the digests
// of its pieces. Where a browser computes none (no secure page) it is a number that lasts as long as the page.
async function identity(blob) {
  if (!crypto.subtle) return hex(crypto.getRandomValues(new Uint8Array(32)).buffer);
  const digests = [];
  for (let begin = 0; begin < blob.size; begin += PIECE) {
    digests.push(await crypto.subtle.digest("SHA-256", await blob.slice(begin, begin + PIECE).arrayBuffer()));
  }
  return hex(await crypto.subtle.digest("SHA-256", await new Blob(digests).arrayBuffer()));
}

export class Sender {
  // csrf: a function, as the token may be renewed. hooks: moved(file, bytes), state(file, word, reason), lost(seconds or null, reason of one who is busy)
  constructor(number, csrf, hooks) {
    this.base = `/api/exams/${number}`;
    this.csrf = csrf;
    this.hooks = hooks;
    this.stopped = false;
  }

  request(method, path, body, headers, progress) {
    return new Promise((done, failed) => {
      const asked = new XMLHttpRequest();
      asked.open(method, this.base + path);
      asked.setRequestHeader("X-CSRF-Token", this.csrf());
      asked.setRequestHeader("Accept", "application/json");
      for (const [name, value] of Object.entries(headers)) asked.setRequestHeader(name, value);
      if (progress) asked.upload.onprogress = (event) => progress(event.loaded);
      asked.timeout = 300000;
      asked.onerror = asked.ontimeout = asked.onabort = () => failed(new Lost("the connection was lost"));
      asked.onload = () => {
        let answer = {};
        try { answer = JSON.parse(asked.responseText || "{}"); } catch { /* an answer of a proxy */ }
        if (asked.status === 429) failed(new Busy(answer.detail || "too many requests", Number(asked.getResponseHeader("Retry-After"))));
        else if ([502, 503, 504, 507].includes(asked.status)) failed(new Lost(answer.detail || `answer ${asked.status}`));
        else done({ status: asked.status, answer });
      };
      asked.send(body);
    });
  }

  // As request, again and again while the line or RSO is away; who says for minutes that it is too much is believed.
  async persist(method, path, body, headers, progress) {
    for (let turn = 0, refusals = 0; ; turn += 1) {
      try {
        const found = await this.request(method, path, body, headers, progress);
        this.hooks.lost(null);
        return found;
      } catch (error) {
        const busy = error instanceof Busy;
        refusals = busy ? refusals + 1 : 0;
        if (!(error instanceof Lost) || this.stopped || refusals > BUSY_TRIES) {
          this.hooks.lost(null);
          throw error;
        }
        const pause = error.seconds || PAUSES[Math.min(turn, PAUSES.length - 1)];
        this.hooks.lost(pause, busy ? error.message : "");
        await Promise.race([sleep(pause), new Promise((back) => { window.addEventListener("online", back, { once: true }); })]);
      }
    }
  }

  async manifest(files, complete = false, digests = new Map()) {
    const known = files.filter((file) => digests.has(file.uid) || file.identity);
    const body = JSON.stringify({
      instances: files.map((file) => file.uid), complete,
      files: known.map((file) => ({ sop_instance_uid: file.uid, size: file.size, sha256: digests.get(file.uid) || "", identity: file.identity || "" })),
    });
    const { status, answer } = await this.persist("POST", "/uploads", body, { "Content-Type": "application/json" });
    if (status !== 200) throw new Error(answer.detail || `RSO answered ${status}`);
    return answer;
  }

  // Which are stored with these very bytes. A browser computes digests on secure pages only; elsewhere the UID decides,
  // but not where another file has it too: what has no digest is sent then.
  async same(files, others) {
    if (!files.length || !crypto.subtle) return new Set(others ? [] : files.map((file) => file.uid));
    const digests = new Map();
    for (const file of files) {
      if (!file.dataset || file.size > LARGE) continue;
      const bytes = await (await file.blob()).slice(file.dataset).arrayBuffer();
      digests.set(file.uid, hex(await crypto.subtle.digest("SHA-256", bytes)));
    }
    const { kept } = await this.manifest(files, false, digests);
    return new Set(kept.filter((uid) => !others || digests.has(uid)));
  }

  async run(files) {
    const turns = rounds(files);
    for (const [turn, these] of turns.entries()) await this.round(these, turn > 0);
    if (files.every((file) => file.state === "stored")) await this.manifest(turns[0], true);
  }

  async round(files, others) {
    const { kept } = await this.manifest(files);
    const named = new Set(kept);
    const there = await this.same(files.filter((file) => named.has(file.uid)), others);
    const wanted = [];
    for (const file of files) {
      if (there.has(file.uid)) { this.hooks.moved(file, file.size); this.hooks.state(file, "stored", "was there already"); }
      else wanted.push(file);
    }
    const jobs = this.jobs(wanted);
    await Promise.all(Array.from({ length: PARALLEL }, async () => {
      for (let job = jobs.shift(); job && !this.stopped; job = jobs.shift()) await job();
    }));
  }

  jobs(files) {
    const jobs = [];
    let group = [], size = 0;
    const close = () => { if (group.length) { const these = group; jobs.push(() => this.group(these)); } group = []; size = 0; };
    for (const file of files) {
      if (file.size > LARGE) { jobs.push(() => this.pieces(file)); continue; }
      if (group.length >= GROUP_FILES || size + file.size > GROUP_BYTES) close();
      group.push(file);
      size += file.size;
    }
    close();
    return jobs;
  }

  async group(files) {
    const boundary = `RSO${crypto.getRandomValues(new Uint32Array(4)).join("")}`;
    const parts = [], ready = [];
    for (const file of files) {
      try {
        parts.push(`--${boundary}\r\nContent-Type: application/dicom\r\n\r\n`, await file.blob(), "\r\n");
        ready.push(file);
        this.hooks.state(file, "sending", "");
      } catch (error) {
        this.hooks.state(file, "failed", `cannot be read: ${error.message}`);
      }
    }
    if (!ready.length) return;
    parts.push(`--${boundary}--\r\n`);
    const kind = `multipart/related; type="application/dicom"; boundary=${boundary}`;
    const total = ready.reduce((sum, file) => sum + file.size, 0);
    const progress = (sent) => { for (const file of ready) this.hooks.moved(file, file.size * Math.min(sent / total, 1) * 0.99); };
    try {
      const { status, answer } = await this.persist("POST", "/studies", new Blob(parts), { "Content-Type": kind }, progress);
      this.settle(ready, status, answer);
    } catch (error) {
      for (const file of ready) this.hooks.state(file, "failed", error.message);
    }
  }

  settle(files, status, answer) {
    const uids = (tag) => new Set((answer[tag]?.Value || []).map((item) => item["00081155"]?.Value?.[0]));
    const stored = uids("00081199");
    const reason = (answer.reasons || []).join("; ") || answer.detail || `RSO answered ${status}`;
    for (const file of files) {
      if (stored.has(file.uid)) { this.hooks.moved(file, file.size); this.hooks.state(file, "stored", ""); }
      else { this.hooks.moved(file, 0); this.hooks.state(file, "failed", reason); }
    }
  }

  async pieces(file) {
    this.hooks.state(file, "sending", "");
    try {
      const blob = await file.blob();
      file.identity ||= await identity(blob);
      let offset = (await this.manifest([file])).offsets[file.uid] || 0;
      for (;;) {
        const begin = offset;
        const headers = { "Upload-Offset": String(begin), "Upload-Length": String(file.size), "Upload-Identity": file.identity, "Content-Type": "application/octet-stream" };
        const { status, answer } = await this.persist("PATCH", `/uploads/${file.uid}`, blob.slice(begin, begin + PIECE), headers,
          (sent) => this.hooks.moved(file, (begin + sent) * 0.99));
        if (status === 200 && answer.stored) break;
        if (answer.offset === undefined) throw new Error(answer.detail || `RSO answered ${status}`);
        offset = answer.offset;
      }
      this.hooks.moved(file, file.size);
      this.hooks.state(file, "stored", "");
    } catch (error) {
      this.hooks.moved(file, 0);
      this.hooks.state(file, "failed", error.message);
    }
  }
}
